// To be preloaded: every form of operator new, of which the nth call of one module fails on demand. Calls count where
// that module is the first on the stack beside the C++ library, so that what other libraries allocate within a step
// (torch, in callbacks) neither counts nor fails.
#include <dlfcn.h>
#include <link.h>
#include <unwind.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

struct Range {
  std::uintptr_t low = 0, high = 0;
  bool has(std::uintptr_t at) const { return low <= at && at < high; }
};

Range library_of(const void* inside) {
  struct Search {
    std::uintptr_t at;
    Range found;
  } search{reinterpret_cast<std::uintptr_t>(inside), {}};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        Range range{UINTPTR_MAX, 0};
        for (int k = 0; k < info->dlpi_phnum; ++k) {
          const auto& part = info->dlpi_phdr[k];
          if (part.p_type != PT_LOAD) continue;
          const std::uintptr_t low = info->dlpi_addr + part.p_vaddr;
          if (low < range.low) range.low = low;
          if (low + part.p_memsz > range.high) range.high = low + part.p_memsz;
        }
        auto& s = *static_cast<Search*>(data);
        if (range.has(s.at)) s.found = range;
        return 0;
      },
      &search);
  return search.found;
}

Range watched, own, standard;
std::atomic<bool> armed{false};
std::atomic<long> calls{0}, thrown{0}, refused{0};
long first = 0;
bool onwards = false;
constexpr int kFrames = 40;
std::uintptr_t frames[kFrames];  // of the first call that failed, as offsets in the module; 0 elsewhere
int depth = 0;
thread_local bool inside = false;

struct Walk {
  bool decided = false, counts = false, record = false;
};

_Unwind_Reason_Code look(_Unwind_Context* context, void* data) {
  auto& walk = *static_cast<Walk*>(data);
  const std::uintptr_t at = _Unwind_GetIP(context);
  if (walk.record) {
    if (depth == kFrames) return _URC_END_OF_STACK;
    if (watched.has(at)) frames[depth++] = at - watched.low;
    return _URC_NO_REASON;
  }
  if (own.has(at) || standard.has(at)) return _URC_NO_REASON;
  walk.counts = watched.has(at);
  return _URC_END_OF_STACK;
}

// Whether this call is to fail.
bool fails(std::atomic<long>& tally) {
  if (!armed.load(std::memory_order_relaxed) || inside) return false;
  inside = true;
  Walk walk;
  _Unwind_Backtrace(look, &walk);
  bool failing = false;
  if (walk.counts) {
    const long n = ++calls;
    failing = n == first || (onwards && n > first);
  }
  if (failing && tally++ == 0 && depth == 0) {
    walk.record = true;
    _Unwind_Backtrace(look, &walk);
  }
  inside = false;
  return failing;
}

void* take(std::size_t size, std::size_t alignment) {
  if (size == 0) size = 1;
  if (alignment == 0) return std::malloc(size);
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* take_or_throw(std::size_t size, std::size_t alignment = 0) {
  void* const at = fails(thrown) ? nullptr : take(size, alignment);
  if (!at) throw std::bad_alloc();
  return at;
}

void* take_or_null(std::size_t size, std::size_t alignment = 0) noexcept {
  return fails(refused) ? nullptr : take(size, alignment);
}

std::size_t of(std::align_val_t alignment) { return static_cast<std::size_t>(alignment); }

}  // namespace

// The C++ library's operator delete is free().
void* operator new(std::size_t size) { return take_or_throw(size); }
void* operator new[](std::size_t size) { return take_or_throw(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return take_or_null(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return take_or_null(size); }
void* operator new(std::size_t size, std::align_val_t to) { return take_or_throw(size, of(to)); }
void* operator new[](std::size_t size, std::align_val_t to) { return take_or_throw(size, of(to)); }
void* operator new(std::size_t size, std::align_val_t to, const std::nothrow_t&) noexcept {
  return take_or_null(size, of(to));
}
void* operator new[](std::size_t size, std::align_val_t to, const std::nothrow_t&) noexcept {
  return take_or_null(size, of(to));
}

extern "C" {

// The module is the one that has this address.
void fail_new_watch(const void* inside_module) {
  watched = library_of(inside_module);
  own = library_of(reinterpret_cast<const void*>(&fail_new_watch));
  standard = library_of(reinterpret_cast<const void*>(&std::get_new_handler));
}

// From now on call n fails, and, if `after`, every one behind it; 0: none does, they are counted.
void fail_new_arm(long n, int after) {
  calls = thrown = refused = 0;
  depth = 0;
  first = n;
  onwards = after != 0;
  armed = true;
}

// How many calls there were.
long fail_new_disarm() {
  armed = false;
  return calls;
}

// How many failed by an exception, and how many by a null pointer.
long fail_new_thrown() { return thrown; }
long fail_new_refused() { return refused; }

int fail_new_frames(std::uintptr_t* out) {
  for (int k = 0; k < depth; ++k) out[k] = frames[k];
  return depth;
}
}
