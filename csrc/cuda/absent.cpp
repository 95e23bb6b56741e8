// In place of this folder where there was no CUDA compiler.
#include <stdexcept>

#include "run.h"

namespace fusedstep::cuda {
namespace {
[[noreturn]] void absent() { throw std::runtime_error("fusedstep was built without CUDA"); }
}  // namespace

std::string built_with() { return ""; }
int device_count() { return 0; }
bool is_capturing(int, void*) { absent(); }
double read(const Scalar&, int, void*) { absent(); }
void add_ranks(const double*, std::uint32_t, std::uint32_t, double*, double, int, void*) { absent(); }
std::unique_ptr<Run> start(Call&) { absent(); }

}  // namespace fusedstep::cuda
