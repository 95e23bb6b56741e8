// Compiled once per instruction set, with that set's flags and FS_TARGET, FS_LANES. Everything here but the table has
// internal linkage (anonymous namespaces, lanes of internal linkage as template arguments), so that no function built
// with wide instructions can be picked by the linker for code that runs elsewhere. Include nothing but hot headers.
#include FS_LANES
#include "../kernels/fused.h"
#include "../kernels/measure.h"
#include "../kernels/norm.h"
#include "../kernels/ride_loops.h"
#include "../kernels/step.h"
#include "../kernels/tile.h"

#define FS_JOIN_(a, b) a##b
#define FS_JOIN(a, b) FS_JOIN_(a, b)
#define FS_STRING_(a) #a
#define FS_STRING(a) FS_STRING_(a)

namespace fusedstep {
namespace {

template <class... Rule, class... F, class... Step>
constexpr TargetTable make_table(TypeList<Rule...>, TypeList<F...>, TypeList<Step...>) {
  return {FS_STRING(FS_TARGET),
          {{step<Rule, Lane<float>>, step<Rule, Lane<double>>}...},
          {{ride_step<Rule, Lane<float>>(), ride_step<Rule, Lane<double>>()}...},
          {ride_table<Lane<float>>(), ride_table<Lane<double>>()},
          {{norm_block<Norm::one, float>, norm_block<Norm::one, double>},
           {norm_block<Norm::two, float>, norm_block<Norm::two, double>},
           {norm_block<Norm::inf, float>, norm_block<Norm::inf, double>}},
          {decode<F>...},
          {encode<F>...},
          {{first_pass<Rule, Lane<float>>(), first_pass<Rule, Lane<double>>()}...},
          {Step::template entry<Lane<float>>()...}};
}

}  // namespace

extern const TargetTable FS_JOIN(table_, FS_TARGET);
const TargetTable FS_JOIN(table_, FS_TARGET) = make_table(AllRules{}, AllFormats{}, FusedSteps{});

}  // namespace fusedstep
