// The communication backend: gloo over the devices' memory.
#pragma once
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "alias.h"

namespace npu_emulator {

using c10d::Work;
using Tensors = std::vector<Tensor>;
using WorkPointer = c10::intrusive_ptr<Work>;

struct HcclWork final : Work {
  WorkPointer gloo;
  Tensors results;

  HcclWork(WorkPointer gloo_work, Tensors tensors) : gloo(std::move(gloo_work)), results(std::move(tensors)) {}
  bool isCompleted() override { return gloo->isCompleted(); }
  bool isSuccess() const override { return gloo->isSuccess(); }
  bool wait(std::chrono::milliseconds timeout) override { return gloo->wait(timeout); }
  void synchronize() override { gloo->wait(); }
  Tensors result() override { return results; }
  // DDP takes the reduced gradients from here: they must be the device's, not the host's.
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    gloo->wait();
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future->markCompleted(c10::IValue(results));
    return future;
  }
};

class Hccl final : public c10d::Backend {
 public:
  explicit Hccl(c10::intrusive_ptr<c10d::Backend> gloo)
      : Backend(gloo->getRank(), gloo->getSize()), gloo_(std::move(gloo)) {}
  const std::string getBackendName() const override { return "hccl"; }
  // Backends of older PyTorch have no such function to override.
  void setTimeout(std::chrono::milliseconds timeout) {
    const auto pass_on = [timeout](auto& gloo) {
      if constexpr (requires { gloo.setTimeout(timeout); }) {
        gloo.setTimeout(timeout);
      }
    };
    pass_on(*gloo_);
  }

  WorkPointer broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    auto views = host(tensors);
    return work(gloo_->broadcast(views, options), tensors);
  }
  WorkPointer allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    auto views = host(tensors);
    return work(gloo_->allreduce(views, options), tensors);
  }
  WorkPointer reduce(Tensors& tensors, const c10d::ReduceOptions& options) override {
    auto views = host(tensors);
    return work(gloo_->reduce(views, options), tensors);
  }
  WorkPointer allgather(
      std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override {
    auto to = host(outputs);
    auto from = host(inputs);
    return work(gloo_->allgather(to, from, options), flat(outputs));
  }
  WorkPointer _allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions& options) override {
    auto to = host(output), from = host(input);
    return work(gloo_->_allgather_base(to, from, options), {output});
  }
  WorkPointer gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) override {
    auto to = host(outputs);
    auto from = host(inputs);
    return work(gloo_->gather(to, from, options), flat(outputs));
  }
  WorkPointer scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) override {
    auto to = host(outputs);
    auto from = host(inputs);
    return work(gloo_->scatter(to, from, options), outputs);
  }
  WorkPointer _reduce_scatter_base(
      Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& options) override {
    auto to = host(output), from = host(input);
    return work(gloo_->_reduce_scatter_base(to, from, options), {output});
  }
  WorkPointer send(Tensors& tensors, int to_rank, int tag) override {
    auto views = host(tensors);
    return work(gloo_->send(views, to_rank, tag), tensors);
  }
  WorkPointer recv(Tensors& tensors, int from_rank, int tag) override {
    auto views = host(tensors);
    return work(gloo_->recv(views, from_rank, tag), tensors);
  }
  WorkPointer barrier(const c10d::BarrierOptions&) override { return gloo_->barrier(c10d::BarrierOptions()); }

 private:
  static Tensor host(const Tensor& tensor) {
    TORCH_CHECK(is_npu(tensor), "hccl: tensors must be on an npu, this one is on ", tensor.device());
    return host_view(tensor);
  }
  template <typename T>
  static std::vector<T> host(const std::vector<T>& values) {
    std::vector<T> views;
    for (const auto& value : values) {
      views.push_back(host(value));
    }
    return views;
  }
  static Tensors flat(const std::vector<Tensors>& lists) {
    Tensors all;
    for (const auto& list : lists) {
      all.insert(all.end(), list.begin(), list.end());
    }
    return all;
  }
  static WorkPointer work(WorkPointer gloo, Tensors results) {
    return c10::make_intrusive<HcclWork>(std::move(gloo), std::move(results));
  }

  c10::intrusive_ptr<c10d::Backend> gloo_;
};

}  // namespace npu_emulator
