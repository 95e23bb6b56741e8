#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace fusedstep {

extern const TargetTable table_scalar, table_avx2, table_avx512, table_neon;
extern const TargetTable table_plain_avx2, table_plain_avx512, table_simde_avx512;

namespace {

struct Target {
  const char* name;
  const TargetTable* table;  // null: not in this build
  bool (*supported)();
};

bool always() { return true; }

#if defined(FS_HAVE_AVX2)
// The compiler's own checks read CPUID and, with XGETBV, whether the system saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// Preferred first. A new instruction set is one entry here and one line in CMakeLists.txt. The names of other machines'
// sets stay known, so that asking for one is told apart from a misspelling.
//
// AVX-512 before AVX2: in cache, on a Zen 4, which splits 512-bit operations in two, rules take 0.6 to 1.0 of the time
// of AVX2, norms the same, with one tensor of 16 KB. First-generation AVX-512 Xeons, which clock down for wide
// arithmetic, have not been measured: FUSEDSTEP_TARGET=avx2 is there for them.
const Target kTargets[] = {
#if defined(FS_HAVE_AVX2)
    {"avx512", &table_avx512, has_avx512},
    {"avx2", &table_avx2, has_avx2},
#else
    {"avx512", nullptr, nullptr},
    {"avx2", nullptr, nullptr},
#endif
#if defined(FS_HAVE_NEON)
    {"neon", &table_neon, always},  // the baseline of AArch64
#else
    {"neon", nullptr, nullptr},
#endif
    {"scalar", &table_scalar, always},
// To measure and to test: after scalar, which every CPU has, and so never chosen unasked.
#if defined(FS_HAVE_PLAIN_AVX2)
    {"plain_avx512", &table_plain_avx512, has_avx512},
    {"plain_avx2", &table_plain_avx2, has_avx2},
#endif
#if defined(FS_HAVE_SIMDE_AVX512)
    {"simde_avx512", &table_simde_avx512, always},
#endif
};

bool available(const Target& t) { return t.table && t.supported(); }

const TargetTable* find_target(const std::string& name) {
  std::string why = "is not known", known;
  for (const Target& t : kTargets) {
    if (name == t.name) {
      if (available(t)) return t.table;
      why = t.table ? "is not supported by this CPU" : "is not in this build";
    }
    if (available(t)) known += std::string(known.empty() ? "" : ", ") + t.name;
  }
  throw std::invalid_argument("target '" + name + "' " + why + ", expected one of: " + known);
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
    if (available(t)) out.push_back(t.name);
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
