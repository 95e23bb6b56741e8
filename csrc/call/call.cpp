#include "call.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace fusedstep {

void check_finite(const Call& call, const Norms& norms, const char* label) {
  if (call.nonfinite != Nonfinite::raise) return;
  const auto fail = [label](const std::string& which, double norm) {
    throw std::runtime_error(std::string(label) + ": " + which + " is non-finite (" + std::to_string(norm) +
                             "); nothing was changed. error_if_nonfinite=False (nonfinite='propagate') lets it pass");
  };
  if (!call.per_tensor) {
    if (!std::isfinite(norms.total)) fail("the total norm", norms.total);
    return;
  }
  for (std::size_t t = 0; t < norms.each.size(); ++t) {
    if (!std::isfinite(norms.each[t])) fail("the norm of array " + std::to_string(t), norms.each[t]);
  }
}

}  // namespace fusedstep
