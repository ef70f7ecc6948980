#include "compress/train/train_state.h"

#include "compress/core/errors.h"
#include "compress/formats/tensor_view.h"
#include "compress/io/hash.h"
#include "compress/io/safetensors_file.h"

namespace attar {
namespace {

struct Named {
  std::string name;
  at::Tensor tensor;
};

std::vector<Named> tensors_of(const std::vector<Parameter>& parameters) {
  std::vector<Named> all;
  for (const Parameter& p : parameters) {
    all.push_back({"value." + p.name, p.value.detach()});
    all.push_back({"first." + p.name, p.first});
    all.push_back({"second." + p.name, p.second});
    if (p.average.defined()) all.push_back({"average." + p.name, p.average});
  }
  return all;
}

}  // namespace

void write_train_state(const std::filesystem::path& file, const TrainState& state,
                       const std::vector<Parameter>& parameters) {
  const std::vector<Named> tensors = tensors_of(parameters);
  std::vector<io::TensorPlan> plan;
  for (const Named& each : tensors) {
    plan.push_back({each.name, io::ElementType::f32, each.tensor.sizes().vec()});
  }
  io::SafetensorsWriter writer(file, plan,
                               {{"step", std::to_string(state.step)},
                                {"skipped", std::to_string(state.skipped)},
                                {"broken", std::to_string(state.broken)},
                                {"fingerprint", state.fingerprint},
                                {"objective", state.objective.dump()},
                                {"history", state.history.dump()}});
  for (const Named& each : tensors) writer.append(each.name, bytes_of(each.tensor));
  writer.finish();
}

std::optional<TrainState> read_train_state(const std::filesystem::path& file,
                                           const std::string& fingerprint,
                                           std::vector<Parameter>& parameters, std::string& why) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  try {
    const auto stored = io::SafetensorsFile::open(file);
    const auto& metadata = stored.metadata();
    if (metadata.at("fingerprint") != fingerprint) {
      why = "it is of another run";
      return std::nullopt;
    }
    TrainState state{std::stoll(metadata.at("step")),
                     std::stoll(metadata.at("skipped")),
                     std::stoll(metadata.at("broken")),
                     fingerprint,
                     nlohmann::json::parse(metadata.at("objective")),
                     nlohmann::json::parse(metadata.at("history"))};
    const std::vector<Named> tensors = tensors_of(parameters);
    for (const Named& each : tensors) {  // all of them are there before one is changed
      require(stored.at(each.name).shape == each.tensor.sizes().vec(), file.string(), each.name,
              " has another shape");
    }
    for (const Named& each : tensors) each.tensor.copy_(view_of(stored.at(each.name)));
    return state;
  } catch (const std::exception& failure) {
    why = std::string("it is damaged: ") + failure.what();
    return std::nullopt;
  }
}

}  // namespace attar
