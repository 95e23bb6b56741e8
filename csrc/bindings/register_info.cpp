// What was built and what runs: targets, threads, rules, the plan.

#include "../call/plan.h"
#include "../cpu/dispatch.h"
#include "../cpu/threads.h"
#include "../cuda/run.h"
#include "../kernels/registry.h"
#include "arrays.h"
#include "interpreter.h"
#include "register.h"

#if defined(__clang__)
#define FS_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define FS_COMPILER "gcc " __VERSION__
#else
#define FS_COMPILER "unknown"
#endif

namespace fusedstep {

void register_info(py::module_& m) {
  m.attr("compiler") = FS_COMPILER;
  m.attr("cuda") = cuda::built_with();
  m.def("cuda_devices", &cuda::device_count);
  m.attr("chunk") = kChunk;
  m.attr("most_steps") = kMostSteps;
  m.attr("norm_block") = kNormBlock;
  m.attr("norm_lanes") = kNormLanes;

  active_target();  // an unusable FUSEDSTEP_TARGET fails the import, not the first step
  m.def("targets", &available_targets);
  m.def("active_target", [] { return std::string(active_target().name); });
  m.def("last_target", [] { return std::string(last_target()); });
  m.def("use_target", &use_target, py::arg("name"));
  m.def("num_threads", [] {
    const ThreadLimit limit(torch_threads());
    return max_threads();
  });
  m.def("set_num_threads", &set_max_threads, py::arg("n"));
  m.def("thread_backend", [] { return std::string(has_openmp() ? "openmp" : "pool"); });
  m.def("set_exchange_api", &set_exchange_api, py::arg("on"));

  m.def("rules", [] {
    py::list out;
    for (const RuleInfo& r : all_rules()) {
      out.append(py::dict(py::arg("name") = r.name, py::arg("state") = r.state, py::arg("hyper") = r.hyper,
                          py::arg("scalars") = r.scalars, py::arg("group_scalars") = r.group_scalars,
                          py::arg("sums") = r.sums));
    }
    return out;
  });
  m.def("fs_pow", &fs_pow, py::arg("b"), py::arg("x"));
  m.def(
      "plan",
      [](const std::vector<std::int64_t>& numels, int parts) {
        const Plan plan(numels);
        std::vector<std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>> out(parts);
        for (int part = 0; part < parts; ++part) {
          const auto [first, last] = plan.span(part, parts);
          plan.visit(first, last, false,
                     [&](std::int64_t, const Chunk& c) { out[part].emplace_back(c.tensor, c.begin, c.end); });
        }
        return out;
      },
      py::arg("numels"), py::arg("parts"));
}

}  // namespace fusedstep
