// Every operator without a kernel of its own runs here: on the CPU, over the device's memory.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <torch/library.h>

#include <set>

#include "alias.h"

namespace npu_emulator {

// ---- what is refused and counted ----

inline std::mutex records_mutex;
inline std::set<std::string> refused_operators;
inline std::map<std::string, int64_t> operator_counts;

// What torch_npu/limits.py has beside names; with their reasons.
struct Limits {
  bool hold = false;
  std::set<std::string> with_kernel;
  std::map<std::string, int64_t> convolution;
};
inline Limits limits;

inline void check_kernel(const std::string& name) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !limits.hold || limits.with_kernel.count(name), "the NPU (emulated) has no kernel for 'aten::", name,
      "': it would run on the CPU, which TORCH_NPU_FALLBACK_CPU_DISABLE=1 forbids");
}

inline void check_type(const Tensor& tensor) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !limits.hold || !(tensor.is_complex() || tensor.scalar_type() == at::kDouble),
      "the NPU (emulated) does not compute with ", tensor.scalar_type());
}

// Names have neither namespace nor overload: "im2col".
inline void count_or_refuse(const std::string& name) {
  std::lock_guard<std::mutex> lock(records_mutex);
  TORCH_CHECK_NOT_IMPLEMENTED(
      !refused_operators.count(name), "the NPU (emulated) has no operator 'aten::", name,
      "': run it on the CPU");
  operator_counts[name]++;
}

// ---- saturating arithmetic, all that a first-generation card has ----

inline bool saturates = false;
inline std::atomic<bool> overflowed{false};

// Inf becomes the largest number and nan 0, in place, and the card's flag tells of it.
inline void saturate(const Tensor& on_host) {
  if (!saturates || !on_host.defined() || !on_host.is_floating_point()) {
    return;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  if (!at::isfinite(on_host).all().item<bool>()) {
    overflowed = true;
    Tensor(on_host).nan_to_num_(0.0);
  }
}

// ---- one call ----

class HostCall {
 public:
  explicit HostCall(std::string name) : name_(std::move(name)) {}

  void note(const Tensor& tensor) {
    if (is_npu(tensor)) {
      check_type(tensor);
      note(tensor.device());
    } else if (tensor.defined() && tensor.dim() > 0) {  // a number may come from the host
      on_host_ = true;
    }
  }
  void note(Device device) {
    if (device_ && *device_ != device) {
      refuse_mixture(device);
    }
    device_ = device;
  }
  // Call when all inputs are noted.
  Device device() {
    static const std::set<std::string> host_indices{
        "index", "index_put", "index_put_", "_index_put_impl_", "_pack_padded_sequence", "_pad_packed_sequence"};
    if (!device_) {
      device_ = Device(kNpu, current_device);
    } else if (on_host_ && !host_indices.count(name_)) {
      refuse_mixture(c10::kCPU);
    }
    return *device_;
  }

  Tensor to_host(const Tensor& tensor) {
    if (!is_npu(tensor)) {
      return tensor;
    }
    for (const auto& [on_device, on_host] : inputs_) {
      if (on_device.is_same(tensor)) {
        return on_host;
      }
    }
    inputs_.emplace_back(tensor, host_view(tensor));
    return inputs_.back().second;
  }

  // In place and out= results are the input itself, views stay views of it, the rest is new.
  Tensor to_device(const Tensor& result) {
    if (!result.defined() || !result.is_cpu()) {
      return result;
    }
    for (const auto& [on_device, on_host] : inputs_) {
      if (on_host.is_same(result)) {
        return on_device;
      }
    }
    for (const auto& [on_device, on_host] : inputs_) {
      if (result.numel() && result.storage().is_alias_of(on_host.storage())) {
        return same_view(on_device.storage(), result, kNpuKeys);
      }
    }
    return adopt(result, device());
  }

  // An out= tensor that the operator resized has new memory.
  void follow_resizes() {
    for (const auto& [on_device, on_host] : inputs_) {
      if (on_device.sizes() != on_host.sizes()) {
        auto* impl = on_device.unsafeGetTensorImpl();
        impl->set_storage_keep_dtype(adopt(on_host, on_device.device()).storage());
        impl->set_sizes_and_strides(on_host.sizes(), on_host.strides(), on_host.storage_offset());
      }
    }
  }

 private:
  void refuse_mixture(Device other) const {
    TORCH_CHECK(
        false, "Expected all tensors to be on the same device, but found at least two devices, ", *device_, " and ",
        other, "! (when running aten::", name_, ")");
  }

  std::string name_;
  std::optional<Device> device_;
  bool on_host_ = false;
  std::vector<std::pair<Tensor, Tensor>> inputs_;  // on the device, on the host
};

inline bool takes_generator(const c10::Argument& argument) {
  const auto& type = argument.type();
  return type->kind() == c10::TypeKind::OptionalType &&
      type->expectRef<c10::OptionalType>().getElementType()->kind() == c10::TypeKind::GeneratorType;
}

// The boxed fallback: the arguments lie on the stack, and the results replace them.
inline void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  std::string name = op.schema().name();
  name = name.substr(name.rfind(':') + 1);
  check_kernel(name);
  count_or_refuse(name);
  HostCall call(name);

  const auto& arguments = op.schema().arguments();
  const auto inputs = torch::jit::last(*stack, arguments.size());
  for (const auto& value : inputs) {
    if (value.isTensor()) {
      call.note(value.toTensor());
    } else if (value.isTensorList()) {
      for (const Tensor& tensor : value.toTensorVector()) {
        call.note(tensor);
      }
    } else if (value.isOptionalTensorList()) {
      for (const auto& tensor : value.toOptionalTensorVector()) {
        call.note(tensor.value_or(Tensor()));
      }
    } else if (value.isDevice() && value.toDevice().type() == kNpu) {
      call.note(with_index(value.toDevice()));
    }
  }
  const Device device = call.device();

  bool draws_from_device = false;
  for (size_t i = 0; i < arguments.size(); i++) {
    auto& value = (*stack)[stack->size() - arguments.size() + i];
    if (value.isTensor()) {
      value = call.to_host(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) {
        list.push_back(call.to_host(tensor));
      }
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const auto& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<Tensor>(call.to_host(*tensor)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice()) {
      value = Device(c10::kCPU);
    } else if (value.isGenerator() || (value.isNone() && takes_generator(arguments[i]))) {
      value = engine_of(value.isNone() ? default_generator(device.index()) : value.toGenerator());
      draws_from_device = true;
    }
  }
  // Without a generator argument it would draw from the CPU's without a word.
  TORCH_CHECK_NOT_IMPLEMENTED(
      draws_from_device || !op.hasTag(at::Tag::nondeterministic_seeded), "the emulated NPU cannot run 'aten::", name,
      "': it draws random numbers and takes no generator");

  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  call.follow_resizes();
  const size_t n_results = op.schema().returns().size();
  for (auto result = stack->end() - n_results; result != stack->end(); ++result) {
    if (result->isTensor()) {
      saturate(result->toTensor());
      *result = call.to_device(result->toTensor());
    } else if (result->isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : result->toTensorVector()) {
        saturate(tensor);
        list.push_back(call.to_device(tensor));
      }
      *result = list;
    }
  }
}

}  // namespace npu_emulator
