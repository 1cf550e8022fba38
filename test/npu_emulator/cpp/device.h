// The device itself: memory, current device, random generators, and what PyTorch asks an accelerator.
#pragma once
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>

namespace npu_emulator {

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;

constexpr auto kNpu = c10::DeviceType::PrivateUse1;
const c10::DispatchKeySet kNpuKeys{c10::DispatchKey::PrivateUse1};
constexpr int kMaxDevices = 64;

inline int device_count = 0;
inline thread_local DeviceIndex current_device = 0;

inline void check_index(DeviceIndex index) {
  TORCH_CHECK(
      index >= 0 && index < device_count, "NPU error: invalid device ordinal ", static_cast<int>(index),
      ", there are ", device_count, " devices");
}

inline void set_device(DeviceIndex index) {
  check_index(index);
  current_device = index;
}

// "npu" means the current one.
inline Device with_index(Device device) {
  return {kNpu, device.has_index() ? device.index() : current_device};
}

inline bool is_npu(const Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kNpu;
}

// ---- memory ----

struct MemoryUse {
  std::atomic<int64_t> current{0}, peak{0};

  void add(int64_t bytes) {
    const int64_t now = current += bytes;
    int64_t before = peak;
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
  }
};
inline std::array<MemoryUse, kMaxDevices> memory_use;

struct Block {
  void* bytes;
  int64_t size;
  DeviceIndex device;

  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    memory_use[block->device].current -= block->size;
    std::free(block->bytes);
    delete block;
  }
};

inline void* aligned_bytes(size_t size) {
  void* bytes = std::aligned_alloc(64, (size + 63) / 64 * 64);
  TORCH_CHECK(bytes || !size, "NPU out of memory: ", size, " bytes");
  return bytes;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    return allocate_on(size, current_device);
  }
  static c10::DataPtr allocate_on(size_t size, DeviceIndex device) {
    auto* block = new Block{size ? aligned_bytes(size) : nullptr, static_cast<int64_t>(size), device};
    memory_use[device].add(block->size);
    return {block->bytes, block, &Block::release, Device(kNpu, device)};
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};
inline DeviceAllocator device_allocator;
REGISTER_ALLOCATOR(kNpu, &device_allocator);

// Pinned memory is plain host memory that is remembered: DDP's reducer insists on is_pinned().
struct PinnedAllocator final : c10::Allocator {
  inline static std::mutex mutex;
  inline static std::map<const char*, size_t> sizes;

  c10::DataPtr allocate(size_t size) override {
    void* bytes = aligned_bytes(size + 1);
    std::lock_guard<std::mutex> lock(mutex);
    sizes[static_cast<char*>(bytes)] = size + 1;
    return {bytes, bytes, &release, Device(c10::kCPU)};
  }
  static void release(void* bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      sizes.erase(static_cast<char*>(bytes));
    }
    std::free(bytes);
  }
  static bool owns(const void* address) {
    auto* byte = static_cast<const char*>(address);
    std::lock_guard<std::mutex> lock(mutex);
    auto next = sizes.upper_bound(byte);
    if (next == sizes.begin()) {
      return false;
    }
    --next;
    return byte < next->first + next->second;
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};
inline PinnedAllocator pinned_allocator;

// ---- the current device; everything is done when a call returns, so streams and events are empty ----

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream(Device device) {
    return c10::Stream(c10::Stream::DEFAULT, with_index(device));
  }
  c10::DeviceType type() const override { return kNpu; }
  DeviceIndex deviceCount() const noexcept override { return device_count; }
  Device getDevice() const override { return {kNpu, current_device}; }
  void setDevice(Device device) const override {
    if (device.has_index()) {
      set_device(device.index());
    }
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) {
      current_device = device.index();
    }
  }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Stream getStream(Device device) const override { return stream(device); }
  c10::Stream getDefaultStream(Device device) const override { return stream(device); }
  c10::Stream getStreamFromGlobalPool(Device device, bool) const override { return stream(device); }
  c10::Stream getNewStream(Device device, int) const override { return stream(device); }
  c10::Stream exchangeStream(c10::Stream other) const override { return stream(other.device()); }
  void record(void** event, const c10::Stream&, DeviceIndex, c10::EventFlag) const override {
    static char recorded;
    *event = &recorded;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  double elapsedTime(void*, void*, DeviceIndex) const override { return 0; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// ---- random numbers: each device draws from a CPU engine of its own, after a seed other numbers than the CPU ----

inline bool draws_like_the_cpu = false;

struct DeviceGenerator final : c10::GeneratorImpl {
  at::Generator engine;
  uint64_t given = 0;

  explicit DeviceGenerator(DeviceIndex index)
      : GeneratorImpl(Device(kNpu, index), kNpuKeys), engine(at::detail::createCPUGenerator()) {
    set_current_seed(engine.current_seed());
  }
  void set_current_seed(uint64_t seed) override {
    given = seed;
    engine.set_current_seed(draws_like_the_cpu ? seed : seed ^ 0x4e5055);
  }
  uint64_t current_seed() const override { return given; }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return given;
  }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "the generator of the emulated NPU has no offset"); }
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl& state) override { engine.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return engine.unsafeGetGeneratorImpl()->get_state();
  }
  DeviceGenerator* clone_impl() const override {
    auto* copy = new DeviceGenerator(device().index());
    copy->given = given;
    copy->engine = engine.clone();
    return copy;
  }
};

// Of the current device where index is -1.
inline const at::Generator& default_generator(DeviceIndex index) {
  static const auto generators = [] {
    std::vector<at::Generator> all;
    for (int i = 0; i < device_count; i++) {
      all.push_back(at::make_generator<DeviceGenerator>(static_cast<DeviceIndex>(i)));
    }
    return all;
  }();
  index = index < 0 ? current_device : index;
  check_index(index);
  return generators[index];
}

inline at::Generator engine_of(const at::Generator& generator) {
  TORCH_CHECK(
      generator.device().type() == kNpu, "Expected a 'npu' device type for generator but found '",
      generator.device().type(), "'");
  return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->engine;
}

// ---- what the rest of PyTorch asks ----

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return device_count; }
  DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(DeviceIndex index) const override { set_device(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    const DeviceIndex before = current_device;
    set_device(index);
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return index < 0 ? current_device : exchangeDevice(index);
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* address) const override { return PinnedAllocator::owns(address); }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override { return default_generator(index); }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    return at::make_generator<DeviceGenerator>(index < 0 ? current_device : index);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    auto bytes = DeviceAllocator::allocate_on(size, storage.device().index());
    if (storage.data() && size) {
      std::memcpy(bytes.get(), storage.data(), std::min(size, storage.nbytes()));
    }
    storage.set_data_ptr_noswap(std::move(bytes));
    storage.set_nbytes(size);
  }
};

}  // namespace npu_emulator
