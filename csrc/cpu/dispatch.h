// Which instruction set runs: the widest that the CPU and the operating system have, or the one asked for.
#pragma once
#include <string>
#include <vector>

#include "../kernels/table.h"

namespace fusedstep {

const TargetTable& active_target();
std::vector<std::string> available_targets();  // preferred first
// The active target, for one call to run with; last_target() names it, "" before the first call. A test of a forced
// target asks that rather than trust the setting.
const TargetTable& target_for_call();
const char* last_target();

void use_target(const std::string& name);  // throws std::invalid_argument naming the available ones

}  // namespace fusedstep
