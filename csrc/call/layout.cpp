#include "layout.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <numeric>
#include <stdexcept>

namespace fusedstep {
namespace {

// Addresses of all elements, ascending. Slow and exact: only for strided arrays that the cheap tests leave open.
std::vector<std::uintptr_t> addresses(const Array& a) {
  std::vector<std::uintptr_t> out;
  out.reserve(a.numel);
  for (std::int64_t i = 0; i < a.numel; ++i) {
    std::int64_t rest = i, offset = 0;
    for (int d = a.ndim - 1; d >= 0; --d) {
      offset += rest % a.shape[d] * a.stride_of(d);
      rest /= a.shape[d];
    }
    out.push_back(reinterpret_cast<std::uintptr_t>(a.data) + static_cast<std::uintptr_t>(offset * a.element_bytes()));
  }
  std::sort(out.begin(), out.end());
  return out;
}

// Addresses [low, high) that an array spans.
struct Range {
  std::uintptr_t low, high;
};

Range range_of(const Array& a) {
  std::int64_t below = 0, above = 0;
  for (int d = 0; d < a.ndim; ++d) {
    const std::int64_t span = (a.shape[d] - 1) * a.stride_of(d);
    (span < 0 ? below : above) += span;
  }
  const auto base = reinterpret_cast<std::uintptr_t>(a.data);
  return {base + static_cast<std::uintptr_t>(below * a.element_bytes()),
          base + static_cast<std::uintptr_t>((above + 1) * a.element_bytes())};
}

// An array as seen from its lowest address: the bytes of an element, and stride and size of each dimension along which
// addresses differ, strides in bytes and without their sign.
struct Extent {
  std::int64_t bytes;
  std::vector<std::pair<std::int64_t, std::int64_t>> dims;

  std::int64_t reach() const {
    std::int64_t sum = bytes;
    for (const auto& [stride, size] : dims) sum += stride * (size - 1);
    return sum;
  }
  Extent below(std::int64_t pitch) const {
    Extent out{bytes, {}};
    std::copy_if(dims.begin(), dims.end(), std::back_inserter(out.dims), [pitch](auto& d) { return d.first < pitch; });
    return out;
  }
};

Extent extent_of(const Array& a) {
  Extent out{a.element_bytes(), {}};
  for (int d = 0; d < a.ndim; ++d) {
    const std::int64_t stride = std::llabs(a.stride_of(d)) * out.bytes;
    if (a.shape[d] > 1 && stride != 0) out.dims.emplace_back(stride, a.shape[d]);
  }
  return out;
}

// Whether two arrays, the second `apart` bytes after the first, share no element; false may also mean that it is not
// known. Strides of at least some pitch are multiples of a period. Where the dimensions below it reach no farther than
// that, they meet only at the same place of a period or of the next one, and the question is theirs: blocks of one
// matrix, x[0::2] and x[1::2]. Each question costs one of `budget`.
bool are_apart(const Extent& a, const Extent& b, std::int64_t apart, int& budget) {
  if (apart >= a.reach() || -apart >= b.reach()) return true;
  if (--budget < 0) return false;
  for (const Extent* x : {&a, &b}) {
    for (const auto& [pitch, size] : x->dims) {
      std::int64_t period = 0;
      for (const Extent* y : {&a, &b}) {
        for (const auto& [stride, n] : y->dims) {
          if (stride >= pitch) period = std::gcd(period, stride);
        }
      }
      const Extent inner_a = a.below(pitch), inner_b = b.below(pitch);
      if (inner_a.reach() > period || inner_b.reach() > period) continue;
      const std::int64_t rest = (apart % period + period) % period;
      if (are_apart(inner_a, inner_b, rest, budget) && are_apart(inner_a, inner_b, rest - period, budget)) return true;
    }
  }
  return false;
}

bool share_an_element(const Array& a, const Array& b) {
  if (a.contiguous && b.contiguous) return true;  // the caller has found their address ranges to overlap
  int budget = 1000;
  const auto apart = static_cast<std::int64_t>(range_of(b).low - range_of(a).low);
  if (are_apart(extent_of(a), extent_of(b), apart, budget)) return false;
  const auto left = addresses(a), right = addresses(b);
  for (auto i = left.begin(), j = right.begin(); i != left.end() && j != right.end();) {
    if (*i + a.element_bytes() <= *j) {
      ++i;
    } else if (*j + b.element_bytes() <= *i) {
      ++j;
    } else {
      return true;
    }
  }
  return false;
}

}  // namespace

std::int64_t Shard::origin() const {
  std::int64_t index = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) index = index * shape[d] + offset[d];
  return index;
}

const Strided* common_layout(const Array* arrays, int count, bool row_major, std::deque<Strided>& keep,
                             const Shard* shard) {
  bool flat = !shard;
  for (int k = 0; k < count; ++k) flat = flat && arrays[k].contiguous;
  if (flat) return nullptr;

  const Array& first = arrays[0];
  std::vector<int> order;
  for (int d = 0; d < first.ndim; ++d) {
    if (first.shape[d] != 1) order.push_back(d);
  }
  if (!row_major) {
    std::stable_sort(order.begin(), order.end(), [&first](int a, int b) {
      return std::llabs(first.stride_of(a)) > std::llabs(first.stride_of(b));
    });
  }

  // Of the streams and, with a shard, of the place in the whole tensor.
  std::vector<std::vector<std::int64_t>> stride(count);
  for (int k = 0; k < count; ++k) {
    for (int d = 0; d < first.ndim; ++d) stride[k].push_back(arrays[k].stride_of(d));
  }
  if (shard) {
    std::vector<std::int64_t>& place = stride.emplace_back(first.ndim, 1);
    for (int d = first.ndim - 1; d > 0; --d) place[d - 1] = place[d] * shard->shape[d];
  }

  Strided s;
  const auto row = [&](std::size_t k) -> std::vector<std::int64_t>& {
    return s.stride[k < static_cast<std::size_t>(count) ? static_cast<int>(k) : kPlace];
  };
  const auto push = [&](std::int64_t size) {
    s.size.push_back(size);
    for (std::size_t k = 0; k < stride.size(); ++k) row(k).push_back(0);
  };
  for (const int d : order) {
    bool joins = !s.size.empty();  // with the dimension outside it, for every array
    for (std::size_t k = 0; k < stride.size() && joins; ++k) joins = row(k).back() == stride[k][d] * first.shape[d];
    if (joins) {
      s.size.back() *= first.shape[d];
    } else {
      push(first.shape[d]);
    }
    for (std::size_t k = 0; k < stride.size(); ++k) row(k).back() = stride[k][d];
  }
  if (first.is_complex) {  // a complex element is two side by side
    for (std::size_t k = 0; k < stride.size(); ++k) {
      for (auto& x : row(k)) x *= 2;
    }
    push(2);
    for (std::size_t k = 0; k < stride.size(); ++k) row(k).back() = 1;
  }
  // Dense in the same order, whatever that is (transposed, channels_last): flat after all.
  bool dense = s.size.size() <= (first.is_complex ? 2 : 1);
  for (std::size_t k = 0; k < stride.size() && dense; ++k) {
    std::int64_t expected = 1;
    for (int d = static_cast<int>(s.size.size()) - 1; d >= 0; --d) {
      dense = dense && row(k)[d] == expected;
      expected *= s.size[d];
    }
  }
  if (dense && (!shard || shard->origin() % kMostDrawn == 0)) return nullptr;
  if (s.size.empty()) push(1);  // of one element
  return &keep.emplace_back(std::move(s));
}

bool overlaps_itself(const Array& a) {
  std::vector<std::pair<std::int64_t, std::int64_t>> dims;  // |stride|, size
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] == 0) return false;
    if (a.shape[d] != 1) dims.emplace_back(std::llabs(a.stride_of(d)), a.shape[d]);
  }
  std::sort(dims.begin(), dims.end());
  std::int64_t reach = 0;
  bool nested = true;  // each stride steps past everything inside it
  for (const auto& [stride, size] : dims) {
    if (stride == 0) return true;
    nested = nested && stride > reach;
    reach += stride * (size - 1);
  }
  if (nested) return false;
  const auto all = addresses(a);
  return std::adjacent_find(all.begin(), all.end(), [&a](std::uintptr_t x, std::uintptr_t y) {
           return y < x + a.element_bytes();
         }) != all.end();
}

void AliasCheck::add(const Array& a, bool written, const Where& where) {
  if (a.numel == 0) return;
  entries_.push_back({&a, where, written, 0, 0});
  key_.push_back(reinterpret_cast<std::uintptr_t>(a.data));
  key_.push_back(static_cast<std::uintptr_t>(a.numel * a.element_bytes()) << 1 | static_cast<std::uintptr_t>(written));
  if (!a.contiguous) add_strides(a);
}

void AliasCheck::add(const Scalar& s, const Where& where) {
  Array& a = numbers_.emplace_back(Array{});
  a.data = s.at;
  a.numel = 1;
  a.format = s.wide ? Format::float64 : Format::float32;
  a.contiguous = true;
  add(a, true, where);
}

void AliasCheck::add_strides(const Array& a) {
  key_.push_back(static_cast<std::uintptr_t>(a.ndim) << 8 | static_cast<std::uintptr_t>(a.element_bytes()));
  for (int d = 0; d < a.ndim; ++d) {
    key_.push_back(static_cast<std::uintptr_t>(a.shape[d]));
    key_.push_back(static_cast<std::uintptr_t>(a.stride_of(d)));
  }
}

void AliasCheck::verify() {
  // The same arrays come back every step, and sorting 1,200 ranges takes longer than updating 300 small tensors:
  // layouts seen before need no second look. Held: numbers to compare with, nothing that is followed.
  static std::vector<std::vector<std::uintptr_t>> seen(4);
  static std::size_t next = 0;
  if (std::find(seen.begin(), seen.end(), key_) != seen.end()) return;
  find_overlap();
  seen[next++ % seen.size()] = std::move(key_);
}

void AliasCheck::find_overlap() {
  std::vector<const Entry*> order;
  for (Entry& e : entries_) {
    const Range range = range_of(*e.array);
    e.low = range.low;
    e.high = range.high;
    order.push_back(&e);
  }
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->low < b->low; });
  std::vector<const Entry*> open;  // ranges that reach past the current start
  for (const Entry* e : order) {
    std::erase_if(open, [e](const Entry* o) { return o->high <= e->low; });
    for (const Entry* o : open) {
      if ((o->written || e->written) && share_an_element(*o->array, *e->array)) {
        throw std::invalid_argument(o->where.text() + " and " + e->where.arg + "[" + std::to_string(e->where.index) +
                                    "] share memory, expected arrays of their own for everything that is updated");
      }
    }
    open.push_back(e);
  }
}

}  // namespace fusedstep
