// An emulated Ascend NPU: PyTorch's PrivateUse1 device over host memory. For tests.
// The only translation unit, since reading PyTorch's headers is most of the work of compiling one.
#include <torch/csrc/utils/pybind.h>

#include "hccl.h"
#include "kernels.h"

using namespace npu_emulator;

PYBIND11_MODULE(_C, module) {
  module.def("start", [](int devices) {
    TORCH_CHECK(devices >= 0 && devices <= kMaxDevices, "an emulated machine has 0 to ", kMaxDevices, " NPUs");
    static Hooks hooks;
    device_count = devices;
    at::RegisterPrivateUse1HooksInterface(&hooks);
  });
  module.def("device_count", [] { return device_count; });
  module.def("current_device", [] { return static_cast<int>(current_device); });
  module.def("set_device", [](int index) { set_device(static_cast<DeviceIndex>(index)); });

  module.def("manual_seed", [](int index, uint64_t seed) {
    at::Generator(default_generator(static_cast<DeviceIndex>(index))).set_current_seed(seed);
  });
  module.def("get_rng_state", [](int index) {
    return Tensor(default_generator(static_cast<DeviceIndex>(index)).unsafeGetGeneratorImpl()->get_state());
  });
  module.def("set_rng_state", [](int index, const Tensor& state) {
    auto* generator = default_generator(static_cast<DeviceIndex>(index)).unsafeGetGeneratorImpl();
    generator->set_state(*state.unsafeGetTensorImpl());
  });

  module.def("memory_allocated", [](int index) { return memory_use.at(index).current.load(); });
  module.def("max_memory_allocated", [](int index) { return memory_use.at(index).peak.load(); });
  module.def("reset_peak_memory_stats", [](int index) {
    memory_use.at(index).peak = memory_use.at(index).current.load();
  });

  module.def("refuse", [](std::set<std::string> names) {
    std::lock_guard<std::mutex> lock(records_mutex);
    std::swap(refused_operators, names);
    return names;
  });
  module.def("set_limits", [](std::set<std::string> with_kernel, std::map<std::string, int64_t> convolution) {
    limits = {limits.hold, std::move(with_kernel), std::move(convolution)};
  });
  module.def("hold_limits", [](bool hold) { return std::exchange(limits.hold, hold); });
  module.def("set_saturating", [](bool wanted) { return std::exchange(saturates, wanted); });
  module.def("saturates", [] { return saturates; });
  module.def("overflowed", [] { return overflowed.load(); });
  module.def("clear_overflow", [] { overflowed = false; });
  module.def("draw_like_the_cpu", [](bool wanted) { return std::exchange(draws_like_the_cpu, wanted); });
  module.def("count_or_refuse", &count_or_refuse);
  module.def("operator_counts", [] {
    std::lock_guard<std::mutex> lock(records_mutex);
    return operator_counts;
  });
  module.def("copies", [] {
    return std::map<std::string, int64_t>{
        {"host_to_device", copies.host_to_device},
        {"device_to_host", copies.device_to_host},
        {"device_to_device", copies.device_to_device},
        {"scalars_read", copies.scalars_read},
        {"host_to_device_bytes", copies.host_to_device_bytes},
        {"device_to_host_bytes", copies.device_to_host_bytes}};
  });
  module.def("reset_counts", [] {
    std::lock_guard<std::mutex> lock(records_mutex);
    operator_counts.clear();
    copies.host_to_device = copies.device_to_host = copies.device_to_device = copies.scalars_read = 0;
    copies.host_to_device_bytes = copies.device_to_host_bytes = 0;
  });

  module.def("host_view", &host_view);
  module.def("change_data_ptr", &change_data_ptr);
  module.def("adopt", [](const Tensor& tensor, int index) {
    return adopt(tensor, Device(kNpu, static_cast<DeviceIndex>(index)));
  });
  py::class_<Hccl, c10d::Backend, c10::intrusive_ptr<Hccl>>(module, "Hccl")
      .def(py::init<c10::intrusive_ptr<c10d::Backend>>());
}
