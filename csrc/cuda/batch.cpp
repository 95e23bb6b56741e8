#include "batch.h"

#include <stdexcept>

namespace fusedstep::cuda {
namespace {

// Appends a Layout to the table; its offset there.
std::int32_t add_layout(std::vector<std::byte>& table, const Strided* s, int streams) {
  if (!s) return -1;
  const std::int32_t at = static_cast<std::int32_t>(table.size() / sizeof(std::int64_t));
  append(table, static_cast<std::int64_t>(s->size.size()));
  for (const std::int64_t size : s->size) append(table, size);
  for (int k = 0; k < streams; ++k) {
    for (const std::int64_t stride : s->stride[k]) append(table, stride);
  }
  return at;
}

}  // namespace

void Batch::build(const Call& call, const std::vector<std::uint32_t>& uniform_of) {
  std::int64_t next_chunk = 0;
  entries.resize(tensors.size() * sizeof(Entry));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = call.tensors[tensors[i]];
    Entry e{};
    e.written[0] = t.stream[0].data;
    for (int k = 2; k < t.streams; ++k) e.written[k - 1] = t.stream[k].data;
    e.numel = t.numel;
    e.first_chunk = static_cast<std::uint32_t>(next_chunk);
    e.uniform = uniform_of[tensors[i]];
    e.layout = add_layout(entries, t.strided, t.streams);
    e.norm_layout = add_layout(entries, t.row_major, 1);
    e.sum = t.sum;
    next_chunk += chunks_of(e.numel);
    normed = normed || t.normed();
    one_each = one_each && chunks_of(e.numel) == 1;
    std::copy_n(reinterpret_cast<const std::byte*>(&e), sizeof e, entries.data() + i * sizeof e);
    append(grads, t.stream[1].data);
  }
  if (next_chunk > INT32_MAX) throw std::length_error("more elements in one step than a launch has room for");
  chunks = static_cast<std::uint32_t>(next_chunk);
}

}  // namespace fusedstep::cuda
