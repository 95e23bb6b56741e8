// One call on the CPU: a plan, spread over threads, through the active target's table. The caller sees to the default
// floating-point environment (FloatEnvironment); the threads of a call do for themselves.
#pragma once
#include <memory>
#include <vector>

#include "../call/call.h"
#include "../call/plan.h"

namespace fusedstep {

namespace cpu {
std::unique_ptr<Run> start(Call& call);
}

// Gradients are read last to first when a norm has just read them first to last: the tail is still in cache.
// Of tensors with statistics those of a chunk are left at `stats`: number k at [k * plan.chunks() + chunk].
void run_step(const std::vector<Tensor>& work, const Plan& plan, bool reverse, double* stats = nullptr);

// Of rules with sums: moves their states and measures, after which run_step makes the second pass. Their layouts are in
// row-major order, as those of norms are. `sums` has room for kMaxSums per chunk; sum k of a tensor is then at
// [k * plan.chunks() + its first chunk], for scale() to complete its uniform.
void run_first_pass(const std::vector<Tensor>& work, const Plan& plan, double* sums);

// What the gradient of each tensor that is part of the norm adds to it, as fold_sums() takes it.
std::vector<double> run_sums(const std::vector<Tensor>& tensors, double norm_type);

}  // namespace fusedstep
