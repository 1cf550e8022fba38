// One memory, two devices: a tensor seen from the host, a host's result adopted by the device.
#pragma once
#include "device.h"

namespace npu_emulator {

// Keeps a storage alive from the other side, and counts it as device memory where the device owns it now.
struct Loan {
  c10::Storage storage;
  MemoryUse* counted;

  static void release(void* context) {
    auto* loan = static_cast<Loan*>(context);
    if (loan->counted) {
      loan->counted->current -= static_cast<int64_t>(loan->storage.nbytes());
    }
    delete loan;
  }
};

inline Tensor same_view(c10::Storage storage, const Tensor& like, c10::DispatchKeySet keys) {
  auto view = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, like.dtype());
  auto* impl = view.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  // The flags that change what an operator does with the bytes.
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) {
    impl->set_wrapped_number(true);
  }
  impl->_set_conj(like.is_conj());
  impl->_set_neg(like.is_neg());
  return view;
}

inline c10::Storage same_bytes(const c10::Storage& storage, Device device, MemoryUse* counted) {
  const size_t size = storage.nbytes();
  void* bytes = const_cast<void*>(storage.data());
  c10::Allocator* allocator = device.is_cpu() ? c10::GetCPUAllocator() : &device_allocator;
  c10::DataPtr pointer(bytes, new Loan{storage, counted}, &Loan::release, device);
  return {c10::Storage::use_byte_size_t{}, size, std::move(pointer), allocator, /*resizable=*/true};
}

inline Tensor host_view(const Tensor& tensor) {
  return same_view(
      same_bytes(tensor.storage(), c10::kCPU, nullptr), tensor, c10::DispatchKeySet(c10::DispatchKey::CPU));
}

// The storage of ``target`` becomes a part of that of ``source``, from its element ``index`` on; its size stays, and what
// shares it sees the same.
inline void change_data_ptr(const Tensor& target, const Tensor& source, int64_t index) {
  TORCH_CHECK(
      index * source.element_size() + target.storage().nbytes() <= source.storage().nbytes(),
      "the combined tensor has no room for a storage of ", target.storage().nbytes(), " bytes at ", index);
  char* bytes = static_cast<char*>(source.data_ptr()) + index * source.element_size();
  target.storage().set_data_ptr_noswap(
      c10::DataPtr(bytes, new Loan{source.storage(), nullptr}, &Loan::release, target.device()));
}

inline Tensor adopt(const Tensor& tensor, Device device) {
  auto& use = memory_use[device.index()];
  use.add(static_cast<int64_t>(tensor.storage().nbytes()));
  return same_view(same_bytes(tensor.storage(), device, &use), tensor, kNpuKeys);
}

}  // namespace npu_emulator
