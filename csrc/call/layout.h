// Memory layout of arrays: how several are walked together, and whether they share memory.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "array.h"
#include "tensor.h"

namespace fusedstep {

// Where a shard lies in the whole tensor: its shape, and the index of the shard's first element along each dimension.
struct Shard {
  std::vector<std::int64_t> shape, offset;
  std::int64_t origin() const;  // the row-major index of that element
};

// How `count` arrays of one shape are walked together: null if they lie flat, element by element in the same order;
// else their common loops, outermost first. Dimensions are put in the order of the first array's strides (any order
// will do for a step); `row_major` keeps the logical order (a norm's order is part of the contract). The result lives
// in `keep`. With a shard it tells the place of each element too, and what lies flat does so in the whole tensor, from
// a multiple of kMostDrawn on.
const Strided* common_layout(const Array* arrays, int count, bool row_major, std::deque<Strided>& keep,
                             const Shard* shard = nullptr);

bool overlaps_itself(const Array& a);

// Throws std::invalid_argument when an array that is written shares memory with another one of the call. Not for two
// threads at a time: what has been verified is remembered.
class AliasCheck {
 public:
  void reserve(std::size_t n) {
    entries_.reserve(n);
    key_.reserve(2 * n);
  }
  void add(const Array& a, bool written, const Where& where);  // `a` must stay in place until verify()
  void add(const Scalar& s, const Where& where);               // written
  void verify();

 private:
  struct Entry {
    const Array* array;
    Where where;
    bool written;
    std::uintptr_t low, high;  // addresses [low, high), for verify()
  };
  void add_strides(const Array& a);
  void find_overlap();

  std::vector<Entry> entries_;
  std::deque<Array> numbers_;  // what entries of scalars point to
  std::vector<std::uintptr_t> key_;
};

}  // namespace fusedstep
