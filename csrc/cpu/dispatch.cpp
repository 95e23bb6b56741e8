#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace fusedstep {

extern const TargetTable table_scalar;
#ifdef FS_HAVE_AVX2
extern const TargetTable table_avx2;
#endif
#ifdef FS_HAVE_PLAIN_AVX2
extern const TargetTable table_plain_avx2;
#endif

namespace {

struct Target {
  const TargetTable* table;
  bool (*supported)();
};

// Preferred first. A new instruction set is one line here and one in CMakeLists.txt.
const Target kTargets[] = {
#ifdef FS_HAVE_AVX2
    // The compiler's own check reads CPUID and, with XGETBV, whether the system saves the wide registers.
    {&table_avx2, [] { return __builtin_cpu_supports("avx2") != 0; }},
#endif
#ifdef FS_HAVE_PLAIN_AVX2
    {&table_plain_avx2, [] { return __builtin_cpu_supports("avx2") != 0; }},
#endif
    {&table_scalar, [] { return true; }},
};

const TargetTable* find_target(const std::string& name) {
  std::string known;
  for (const Target& t : kTargets) {
    if (!t.supported()) continue;
    if (name == t.table->name) return t.table;
    known += std::string(known.empty() ? "" : ", ") + t.table->name;
  }
  throw std::invalid_argument("target '" + name + "' is not available here, expected one of: " + known);
}

std::atomic<const TargetTable*>& current() {
  static std::atomic<const TargetTable*> table{[] {
    const char* forced = std::getenv("FUSEDSTEP_TARGET");
    return find_target(forced && *forced ? forced : available_targets().front());
  }()};
  return table;
}

std::atomic<const TargetTable*> last_run{nullptr};

}  // namespace

const TargetTable& active_target() { return *current().load(std::memory_order_relaxed); }

std::vector<std::string> available_targets() {
  std::vector<std::string> out;
  for (const Target& t : kTargets) {
    if (t.supported()) out.push_back(t.table->name);
  }
  return out;
}

const TargetTable& target_for_call() {
  const TargetTable& table = active_target();
  last_run.store(&table, std::memory_order_relaxed);
  return table;
}

const char* last_target() {
  const TargetTable* table = last_run.load(std::memory_order_relaxed);
  return table ? table->name : "";
}

void use_target(const std::string& name) { current().store(find_target(name)); }

}  // namespace fusedstep
