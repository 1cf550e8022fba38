// The operators that cannot take the way of host_call.h: new memory, copies, views, convolutions, autocast.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>

#include "host_call.h"

namespace npu_emulator {

// ---- new memory ----

inline Device checked_device(std::optional<Device> device, std::optional<bool> pinned) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  const Device checked = with_index(c10::device_or_default(device));
  check_index(checked.index());
  return checked;
}

inline Tensor empty(
    c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<Device> device, std::optional<bool> pinned, std::optional<c10::MemoryFormat> format) {
  c10::DeviceGuard guard(checked_device(device, pinned));
  return at::detail::empty_generic(size, &device_allocator, kNpuKeys, c10::dtype_or_default(dtype), format);
}

inline Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<Device> device, std::optional<bool> pinned) {
  c10::DeviceGuard guard(checked_device(device, pinned));
  return at::detail::empty_strided_generic(size, stride, &device_allocator, kNpuKeys, c10::dtype_or_default(dtype));
}

// ---- copies ----

struct Copies {
  std::atomic<int64_t> host_to_device{0}, device_to_host{0}, device_to_device{0}, scalars_read{0};
  std::atomic<int64_t> host_to_device_bytes{0}, device_to_host_bytes{0};
};
inline Copies copies;

inline Tensor copy_from(const Tensor& source, const Tensor& target, bool) {
  if (!is_npu(source)) {
    copies.host_to_device++;
    copies.host_to_device_bytes += static_cast<int64_t>(source.nbytes());
  } else if (!is_npu(target)) {
    copies.device_to_host++;
    copies.device_to_host_bytes += static_cast<int64_t>(source.nbytes());
  } else {
    copies.device_to_device++;
  }
  Tensor to = is_npu(target) ? host_view(target) : target;
  to.copy_(is_npu(source) ? host_view(source) : source);
  if (is_npu(source) && is_npu(target) && source.scalar_type() != target.scalar_type()) {
    saturate(to);
  }
  return target;
}

inline Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  target.resize_(source.sizes());
  return copy_from(source, target, false);
}

// item(), and the truth of a tensor.
inline c10::Scalar read_scalar(const Tensor& tensor) {
  copies.scalars_read++;
  return at::native::_local_scalar_dense_cpu(tensor);
}

// ---- views: PyTorch's own functions, which keep the device of what they are given ----

inline Tensor view(const Tensor& tensor, c10::IntArrayRef size) {
  return at::native::view(tensor, size);
}
inline Tensor& set_nothing(Tensor& self) {
  auto nothing = DeviceAllocator::allocate_on(0, self.device().index());
  return at::native::set_(
      self, c10::Storage(c10::Storage::use_byte_size_t{}, 0, std::move(nothing), &device_allocator, true));
}
inline Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return at::native::set_tensor_(self, source);
}
inline Tensor& set_storage(Tensor& self, c10::Storage source) {
  return at::native::set_(self, std::move(source));
}

// ---- convolutions: only here is a 1-D convolution still 1-D, below PyTorch makes it a 2-D one ----

inline std::string convolution_name(const Tensor& input, bool transposed) {
  return (transposed ? "conv_transpose" : "conv") + std::to_string(input.dim() - 2) + "d";
}

inline void check_limit(const std::string& what, c10::IntArrayRef values) {
  const auto limit = limits.convolution.find(what);
  if (!limits.hold || limit == limits.convolution.end()) {
    return;
  }
  for (const auto value : values) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        value <= limit->second, "the NPU (emulated) takes a ", what, " of up to ", limit->second,
        " in a convolution, not of ", value);
  }
}

inline void check_convolution(
    const Tensor& input, const Tensor& weight, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed) {
  if (transposed) {
    check_limit("transposed kernel", weight.sizes().slice(2));
    check_limit("transposed dilation", dilation);
  } else {
    check_limit("padding", padding);
    check_limit("dilation", dilation);
  }
  check_limit("dimension", input.sizes());
  check_limit("dimension", weight.sizes());
}

inline Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
    int64_t groups) {
  const auto name = convolution_name(input, transposed);
  count_or_refuse(name);
  check_convolution(input, weight, padding, dilation, transposed);
  HostCall call(name);
  for (const Tensor& tensor : {input, weight, bias.value_or(Tensor())}) {
    call.note(tensor);
  }
  call.device();
  const auto host_bias = bias ? std::optional<Tensor>(call.to_host(*bias)) : std::nullopt;
  const Tensor result = at::convolution(
      call.to_host(input), call.to_host(weight), host_bias, stride, padding, dilation, transposed, output_padding,
      groups);
  saturate(result);
  return call.to_device(result);
}

inline std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, at::OptionalIntArrayRef bias_sizes,
    c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
    c10::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> wanted) {
  const auto name = convolution_name(input, transposed) + "_backward";
  count_or_refuse(name);
  HostCall call(name);
  for (const Tensor& tensor : {gradient, input, weight}) {
    call.note(tensor);
  }
  call.device();
  const auto [d_input, d_weight, d_bias] = at::convolution_backward(
      call.to_host(gradient), call.to_host(input), call.to_host(weight), bias_sizes, stride, padding, dilation,
      transposed, output_padding, groups, wanted);
  for (const Tensor& tensor : {d_input, d_weight, d_bias}) {
    saturate(tensor);
  }
  return {call.to_device(d_input), call.to_device(d_weight), call.to_device(d_bias)};
}

// ---- registration ----

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", read_scalar);
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", view);
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  library.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  library.impl("resize_", TORCH_FN(at::native::resize_));
  library.impl("set_", set_nothing);
  library.impl("set_.source_Tensor", set_tensor);
  library.impl("set_.source_Storage", set_storage);
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(at::native::set_storage_cpu_));
  library.impl("convolution", convolution);
  library.impl("convolution_backward", convolution_backward);
  // PyTorch puts these together from others for a device without kernels of its own: repeat from unfold, which
  // may be refused, mse_loss with a warning, the rest with other roundings than the CPU's kernels.
  for (const char* name :
       {"repeat", "native_layer_norm", "native_group_norm", "silu_backward", "mish_backward", "mse_loss"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  }
}

// PyTorch has lists of what autocast does, but leaves it to each backend to register them.
// Its macros expect these two namespaces to be open.
using namespace at;
using namespace at::autocast;
#define NPU_LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define NPU_FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(NPU_LOWER_PRECISION)
  AT_FORALL_FP32(NPU_FLOAT32)
}

}  // namespace npu_emulator
