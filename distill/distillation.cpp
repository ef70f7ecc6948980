#include "distill/distillation.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "compress/core/errors.h"

namespace attar {
namespace {

// The tokens that hidden states are compared at: those with a target, but the first of a sequence,
// where activations are massive.
at::Tensor counts_of(const at::Tensor& targets) {
  at::Tensor counts = targets.ge(0).to(at::kFloat);
  counts.select(1, 0).zero_();
  return counts.flatten().contiguous();
}

}  // namespace

Distillation::Distillation(LossPlan plan, Teachers teachers, Student& student, const Batch& first,
                           bool recompute, const std::function<void()>& check_stop)
    : plan_(std::move(plan)), teachers_(std::move(teachers)), recompute_(recompute) {
  for (const ResponsePart& part : plan_.responses) {
    if (part.taid) taid_.emplace_back(*part.taid);
  }
  for (const RelationPart& part : plan_.relations) {
    relations_.emplace_back(part, student.config(), teachers_.live->config());
  }
  for (const HiddenPart& part : plan_.hidden) {
    hidden_.emplace_back(part, student.config(), teachers_.live->config());
  }
  const std::int64_t micro = micro_sequences(first.ids.size(1));
  const at::NoGradGuard none;
  const bool projects = std::any_of(hidden_.begin(), hidden_.end(),
                                    [](const HiddenLoss& loss) { return loss.projects(); });
  // Scales need no more than the first look.
  const std::int64_t looked_at = projects ? first.ids.size(0) : std::min(micro, first.ids.size(0));
  for (std::int64_t at = 0; !hidden_.empty() && at < looked_at; at += micro) {
    check_stop();
    const at::Tensor ids = first.ids.narrow(0, at, std::min(micro, first.ids.size(0) - at));
    teachers_.live->read(ids);
    const Activations seen = student.forward(ids, /*recompute=*/true);
    for (HiddenLoss& loss : hidden_) loss.look(seen, *teachers_.live);
  }
  for (HiddenLoss& loss : hidden_) loss.settle(student);
}

void Distillation::begin_step(const Batch& batch, std::int64_t step, std::int64_t steps) {
  const auto weight_of = [&](double weight, const ActiveShare& active) {
    return active.holds(step, steps) ? weight : 0.0;
  };
  terms_.clear();
  std::size_t taid = 0;
  for (const ResponsePart& part : plan_.responses) {
    ResponseTerm term = part.term;
    term.weight = weight_of(part.term.weight, part.active);
    if (part.taid) term.mix = taid_[taid++].t();
    terms_.push_back(term);
  }
  hidden_weights_.clear(), relation_weights_.clear();
  for (const HiddenPart& part : plan_.hidden) {
    hidden_weights_.push_back(weight_of(part.weight, part.active));
  }
  for (const RelationPart& part : plan_.relations) {
    relation_weights_.push_back(weight_of(part.weight, part.active));
  }
  next_sequence_ = 0;
  teachers_.read(batch);
}

std::vector<ObjectiveTerm> Distillation::add_gradient(Student& student, const Batch& micro,
                                                      double scale) {
  const std::int64_t first = next_sequence_, length = micro.ids.size(1);
  next_sequence_ += micro.ids.size(0);
  Activations activations = student.forward(micro.ids, recompute_);
  const at::Tensor hidden = activations.normed.detach();
  const std::int64_t common = teachers_.live ? teachers_.live->common() : student.head().size(0);
  at::Tensor head_gradient = student.head_gradient();
  if (head_gradient.defined()) head_gradient = head_gradient.narrow(0, 0, common);
  const ResponseGradient found =
      response_gradient(hidden.flatten(0, 1), student.head().narrow(0, 0, common), head_gradient,
                        teachers_.targets(micro, first * length), terms_, scale);
  std::vector<double> hidden_losses(hidden_.size()), relation_losses(relations_.size());
  const at::Tensor counts = counts_of(micro.targets);
  student.backward(activations, found.hidden.view(hidden.sizes()),
                   [&](std::int64_t boundary, at::Tensor& total) {
                     const auto at = static_cast<std::size_t>(boundary);
                     for (std::size_t i = 0; i < hidden_.size(); ++i) {
                       if (hidden_weights_[i] == 0) continue;
                       hidden_losses[i] +=
                           hidden_[i].add(boundary, activations.inputs[at], counts, *teachers_.live,
                                          first, hidden_weights_[i], scale, student, total);
                     }
                     for (std::size_t i = 0; i < relations_.size(); ++i) {
                       if (relation_weights_[i] == 0 || relations_[i].student_block() != boundary)
                         continue;
                       relation_losses[i] +=
                           relations_[i].add(activations.inputs[at], *teachers_.live, first,
                                             relation_weights_[i], scale, student, total);
                     }
                   });
  std::vector<ObjectiveTerm> terms = {{"loss", 0}};
  for (std::size_t i = 0; i < terms_.size(); ++i) {
    terms[0].sum += terms_[i].weight * found.losses[i];
    terms.push_back({plan_.responses[i].name, found.losses[i]});
  }
  for (std::size_t i = 0; i < hidden_.size(); ++i) {
    terms[0].sum += hidden_weights_[i] * hidden_losses[i];
    terms.push_back({"hidden", hidden_losses[i]});
  }
  for (std::size_t i = 0; i < relations_.size(); ++i) {
    terms[0].sum += relation_weights_[i] * relation_losses[i];
    terms.push_back({"relation", relation_losses[i]});
  }
  return terms;
}

void Distillation::finished_step(std::int64_t step, std::int64_t steps, double mean) {
  for (TaidSchedule& schedule : taid_) schedule.finished_step(step, steps, mean);
}

nlohmann::json Distillation::state() const {
  nlohmann::json state = nlohmann::json::array();
  for (const TaidSchedule& schedule : taid_) state.push_back(schedule.state());
  return state;
}

void Distillation::restore(const nlohmann::json& state) {
  for (std::size_t i = 0; i < taid_.size(); ++i) taid_[i].restore(state.at(i));
}

}  // namespace attar
