// Which instruction set runs: the widest that the CPU and the operating system have, or the one asked for.
#pragma once
#include <string>
#include <vector>

#include "../kernels/table.h"

namespace fusedstep {

const TargetTable& active_target();
std::vector<std::string> available_targets();  // preferred first
void use_target(const std::string& name);      // throws std::invalid_argument naming the available ones

}  // namespace fusedstep
