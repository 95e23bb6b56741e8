#include "batch.h"

#include <numeric>
#include <stdexcept>

namespace fusedstep::cuda {
namespace {

// Appends a Layout of these streams to the table; its offset there.
std::int32_t add_layout(std::vector<std::byte>& table, const Strided* s, const std::vector<int>& streams) {
  if (!s) return -1;
  const std::int32_t at = static_cast<std::int32_t>(table.size() / sizeof(std::int64_t));
  append(table, static_cast<std::int64_t>(s->size.size()));
  for (const std::int64_t size : s->size) append(table, size);
  for (const int k : streams) {
    for (const std::int64_t stride : s->stride[k]) append(table, stride);
  }
  std::vector<std::int64_t> place = s->stride[kPlace];
  if (place.empty()) {  // row-major
    place.assign(s->size.size(), 1);
    for (std::size_t d = place.size() - 1; d > 0; --d) place[d - 1] = place[d] * s->size[d];
  }
  for (const std::int64_t stride : place) append(table, stride);
  return at;
}

// make(t, index, e) fills in what else an entry has.
template <class E, class Head, class Make>
void fill(Table<Head>& table, const Call& call, const Make& make) {
  std::int64_t next_chunk = 0;
  bool one_each = true;
  table.entries.resize(table.tensors.size() * sizeof(E));
  for (std::size_t i = 0; i < table.tensors.size(); ++i) {
    const Tensor& t = call.tensors[table.tensors[i]];
    E e{};
    e.numel = t.numel;
    e.first_chunk = static_cast<std::uint32_t>(next_chunk);
    make(t, table.tensors[i], e);
    next_chunk += chunks_of(t.numel);
    one_each = one_each && chunks_of(t.numel) == 1;
    std::copy_n(reinterpret_cast<const std::byte*>(&e), sizeof e, table.entries.data() + i * sizeof e);
    append(table.grads, t.stream[1].data);
  }
  if (next_chunk > INT32_MAX) throw std::length_error("more elements in one step than a launch has room for");
  TableHead& head = table.args.head() = Head{};
  head.tensors = static_cast<std::uint32_t>(table.tensors.size());
  head.chunks = static_cast<std::uint32_t>(next_chunk);
  head.one_each = one_each;
}

}  // namespace

void Batch::build(const Call& call, const std::vector<std::uint32_t>& uniform_of) {
  const auto make = [&](const Tensor& t, std::uint32_t index, StepEntry& e, std::vector<int> extra = {}) {
    std::vector<int> streams(t.rule_streams());
    std::iota(streams.begin(), streams.end(), 0);
    streams.insert(streams.end(), extra.begin(), extra.end());
    e.layout = add_layout(entries, t.strided, streams);
    e.written[0] = t.stream[0].data;
    for (int k = 2; k < t.rule_streams(); ++k) e.written[k - 1] = t.stream[k].data;
    for (int k = 0; k < t.rule_streams(); ++k) e.format[k] = t.stream[k].format;
    e.uniform = uniform_of[index];
    e.id = t.id;
    e.origin = t.origin;
  };
  if (!rides) {
    fill<StepEntry>(*this, call, [&](const Tensor& t, std::uint32_t index, StepEntry& e) { make(t, index, e); });
    return;
  }
  fill<RideEntry>(*this, call, [&](const Tensor& t, std::uint32_t index, RideEntry& e) {
    make(t, index, e, {t.mask, t.average});
    e.mask = t.mask > 0 ? t.stream[t.mask].data : nullptr;
    e.average = t.average > 0 ? t.stream[t.average].data : nullptr;
    e.nonzero = t.nonzero;
    e.follows = t.follows;
    e.stats = t.stats >= 0;
  });
}

void NormBatch::build(const Call& call) {
  fill<NormEntry>(*this, call, [&](const Tensor& t, std::uint32_t, NormEntry& e) {
    const Stream* const kept = t.kept_by();
    e.layout = add_layout(entries, t.row_major, kept ? std::vector{0, 1} : std::vector{0});
    e.format = t.stream[1].format;
    e.kept_format = kept ? kept->format : e.format;
    e.kept = kept ? kept->data : nullptr;
    e.nonzero = t.nonzero;
  });
}

}  // namespace fusedstep::cuda
