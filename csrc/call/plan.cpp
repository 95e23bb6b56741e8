#include "plan.h"

namespace fusedstep {

Plan::Plan(const std::vector<std::int64_t>& numels) : first_element_{0}, first_chunk_{0} {
  first_element_.reserve(numels.size() + 1);
  first_chunk_.reserve(numels.size() + 1);
  for (const std::int64_t n : numels) {
    first_element_.push_back(first_element_.back() + n);
    first_chunk_.push_back(first_chunk_.back() + chunks_of(n));
  }
}

std::int64_t Plan::tensor_of(std::int64_t chunk) const {
  return std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk) - first_chunk_.begin() - 1;
}

std::pair<std::int64_t, std::int64_t> Plan::span(int part, int parts) const {
  const auto cut = [this, parts](int k) {
    if (k == parts) return chunks();
    const std::int64_t total = elements();
    const std::int64_t element = total / parts * k + total % parts * k / parts;  // no product can overflow
    const std::int64_t t =
        std::upper_bound(first_element_.begin(), first_element_.end(), element) - first_element_.begin() - 1;
    if (t == static_cast<std::int64_t>(first_element_.size()) - 1) return chunks();
    return first_chunk_[t] + (element - first_element_[t]) / kChunk;
  };
  return {cut(part), cut(part + 1)};
}

}  // namespace fusedstep
