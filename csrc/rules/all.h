// Every rule, once. The order is the index that the dispatch tables share.
#pragma once
#include <type_traits>

#include "adabelief.h"
#include "adadelta.h"
#include "adagrad.h"
#include "adam.h"
#include "adamax.h"
#include "adan.h"
#include "ademamix.h"
#include "adopt.h"
#include "asgd.h"
#include "clip.h"
#include "laprop.h"
#include "lion.h"
#include "nadam.h"
#include "radam.h"
#include "rmsprop.h"
#include "rprop.h"
#include "sgd.h"
#include "signsgd.h"
#include "yogi.h"

#if defined(FS_EXTRA_RULES)  // a build for tests has more
#include FS_EXTRA_RULES
#else
namespace fusedstep {
using ExtraRules = TypeList<>;
}
#endif

namespace fusedstep {

using AllRules = Concat<ClipRules, SgdRules, AdagradRules, RmspropRules, AdamRules, LionRules, NAdamRules, RAdamRules,
                        AdamaxRules, AdadeltaRules, RpropRules, ASGDRules, AdEMAMixRules, AdoptRules, AdanRules,
                        SignSgdRules, YogiRules, AdaBeliefRules, LaPropRules, ExtraRules>::type;

// Where a rule is among others.
template <class Rule, class First, class... Rest>
constexpr int index_of(TypeList<First, Rest...>) {
  if constexpr (std::is_same_v<Rule, First>) {
    return 0;
  } else {
    return 1 + index_of<Rule>(TypeList<Rest...>{});
  }
}

}  // namespace fusedstep
