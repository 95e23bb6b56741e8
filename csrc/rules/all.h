// Every rule, once. The order is the index that the dispatch tables share.
#pragma once
#include "adagrad.h"
#include "adam.h"
#include "clip.h"
#include "rmsprop.h"
#include "sgd.h"

namespace fusedstep {

using AllRules = ConcatRules<ClipRules, SgdRules, AdagradRules, RmspropRules, AdamRules>::type;

}  // namespace fusedstep
