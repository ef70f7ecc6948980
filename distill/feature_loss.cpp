#include "distill/feature_loss.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "compress/linalg/decomposition.h"

namespace attar {
namespace {

// Sums of body(row) in the order of the rows.
template <class Body>
double sum_of_rows(std::int64_t rows, const Body& body) {
  std::vector<double> sums(static_cast<std::size_t>(rows));
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) sums[static_cast<std::size_t>(r)] = body(r);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// scores -> softmax(scores * factor), row by row.
void softmax_row(float* row, std::int64_t count, double factor) {
  double top = -INFINITY, sum = 0;
  for (std::int64_t c = 0; c < count; ++c) top = std::max(top, static_cast<double>(row[c]));
  for (std::int64_t c = 0; c < count; ++c) {
    row[c] = std::exp(static_cast<float>((static_cast<double>(row[c]) - top) * factor));
    sum += static_cast<double>(row[c]);
  }
  const auto inverse = static_cast<float>(1 / sum);
  for (std::int64_t c = 0; c < count; ++c) row[c] *= inverse;
}

// [B, T, W] -> [B * heads, T, W / heads], contiguous.
at::Tensor cut(const at::Tensor& x, std::int64_t heads) {
  const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2) / heads;
  return x.reshape({batch, length, heads, width})
      .transpose(1, 2)
      .reshape({batch * heads, length, width})
      .contiguous();
}

}  // namespace

ChannelScales channel_scales(const at::Tensor& states, double massive) {
  const at::Tensor rows = states.to(at::kDouble).t().contiguous();  // [C, N]
  const std::int64_t channels = rows.size(0), count = rows.size(1);
  const double* x = rows.const_data_ptr<double>();
  std::vector<double> squares(static_cast<std::size_t>(channels));
  ChannelScales scales{at::zeros({channels}, at::kFloat)};
  float* inverse = scales.inverse_deviation.mutable_data_ptr<float>();
  for (std::int64_t c = 0; c < channels; ++c) {
    double sum = 0, square = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      const double value = x[c * count + n];
      sum += value;
      square += value * value;
    }
    const double mean = sum / static_cast<double>(count);
    squares[static_cast<std::size_t>(c)] = square / static_cast<double>(count);
    const double variance = squares[static_cast<std::size_t>(c)] - mean * mean;
    inverse[c] = variance > 1e-12 ? static_cast<float>(1 / std::sqrt(variance)) : 0.0f;
  }
  std::vector<double> sorted = squares;
  std::sort(sorted.begin(), sorted.end());
  const double bound = massive * sorted[sorted.size() / 2];
  for (std::int64_t c = 0; c < channels; ++c) {
    if (squares[static_cast<std::size_t>(c)] <= bound) continue;
    inverse[c] = 0;
    ++scales.massive;
  }
  return scales;
}

void ClosedProjection::add(const at::Tensor& student, const at::Tensor& teacher) {
  const at::Tensor s = student.to(at::kDouble), t = teacher.to(at::kDouble);
  const at::Tensor gram = at::mm(s.t(), s), cross = at::mm(t.t(), s);
  gram_ = gram_.defined() ? gram_.add_(gram) : gram;
  cross_ = cross_.defined() ? cross_.add_(cross) : cross;
}

at::Tensor ClosedProjection::solve() const {
  double trace = 0;
  for (std::int64_t i = 0; i < gram_.size(0); ++i) trace += gram_[i][i].item<double>();
  for (double ridge = 1e-6; ridge <= 1; ridge *= 10) {
    at::Tensor damped = gram_.clone();
    damped.diagonal().add_(ridge * trace / static_cast<double>(gram_.size(0)));
    const at::Tensor found = linalg::solve_right(cross_, damped);
    if (found.defined()) return found.t().to(at::kFloat).contiguous();
  }
  throw NumericRefusal(message("distill.hidden",
                               "no projection fits the student's states, which are all zero or "
                               "not finite; the model is damaged"));
}

HiddenGradient hidden_gradient(const at::Tensor& student, const at::Tensor& teacher,
                               const at::Tensor& projection, const ChannelScales& scales,
                               const at::Tensor& counts, double scale) {
  const at::NoGradGuard none;
  const at::Tensor mapped = projection.defined() ? at::mm(student, projection) : student.clone();
  const std::int64_t rows = mapped.size(0), channels = mapped.size(1);
  const at::Tensor target = teacher.contiguous();
  float* difference = mapped.mutable_data_ptr<float>();
  const float* wanted = target.const_data_ptr<float>();
  const float* inverse = scales.inverse_deviation.const_data_ptr<float>();
  const float* counted = counts.const_data_ptr<float>();
  std::int64_t used = 0;
  for (std::int64_t c = 0; c < channels; ++c) used += inverse[c] > 0 ? 1 : 0;
  const double share = used > 0 ? 1 / static_cast<double>(used) : 0;
  const auto factor = static_cast<float>(2 * share * scale);
  HiddenGradient result;
  result.loss = share * sum_of_rows(rows, [&](std::int64_t r) {
                  float* row = difference + r * channels;
                  double sum = 0;
                  for (std::int64_t c = 0; c < channels; ++c) {
                    const float off = (row[c] - wanted[r * channels + c]) * inverse[c] * counted[r];
                    sum += static_cast<double>(off) * static_cast<double>(off);
                    row[c] = factor * off * inverse[c];
                  }
                  return sum;
                });
  if (projection.defined()) {
    result.student = at::mm(mapped, projection.t());
    result.projection = at::mm(student.t(), mapped);
  } else {
    result.student = mapped;
  }
  return result;
}

RelationGradient relation_gradient(const at::Tensor& student, const at::Tensor& teacher,
                                   std::int64_t heads, double scale) {
  const at::NoGradGuard none;
  const at::Tensor s = cut(student, heads), t = cut(teacher, heads);
  at::Tensor q = at::bmm(s, s.transpose(1, 2));
  const at::Tensor p = at::bmm(t, t.transpose(1, 2));
  const std::int64_t length = q.size(1);
  const double q_factor = 1 / std::sqrt(static_cast<double>(s.size(2)));
  const double p_factor = 1 / std::sqrt(static_cast<double>(t.size(2)));
  float* own = q.mutable_data_ptr<float>();
  float* wanted = p.mutable_data_ptr<float>();
  const auto factor = static_cast<float>(scale * q_factor / static_cast<double>(heads));
  RelationGradient result;
  result.loss = sum_of_rows(q.size(0) * length,
                            [&](std::int64_t r) {
                              float *a = own + r * length, *b = wanted + r * length;
                              softmax_row(a, length, q_factor);
                              softmax_row(b, length, p_factor);
                              double sum = 0;
                              for (std::int64_t c = 0; c < length; ++c) {
                                if (b[c] > 0) {
                                  sum += static_cast<double>(b[c]) *
                                         std::log(static_cast<double>(b[c]) /
                                                  std::max(static_cast<double>(a[c]), 1e-30));
                                }
                                a[c] = factor * (a[c] - b[c]);  // of the score
                              }
                              return sum;
                            }) /
                static_cast<double>(heads);
  // A score is the product of two rows of the same matrix.
  const at::Tensor back = at::bmm(q, s) + at::bmm(q.transpose(1, 2), s);
  const std::int64_t batch = student.size(0), width = s.size(2);
  result.student = back.reshape({batch, heads, length, width})
                       .transpose(1, 2)
                       .reshape(student.sizes())
                       .contiguous();
  return result;
}

std::int64_t relation_heads(const std::vector<std::int64_t>& widths) {
  std::int64_t common = 0;
  for (const std::int64_t width : widths) common = std::gcd(common, width);
  for (std::int64_t heads = std::min<std::int64_t>(64, common); heads > 1; --heads) {
    if (common % heads == 0) return heads;
  }
  return 1;
}

std::vector<std::int64_t> boundaries_of(const HiddenPart& part, std::int64_t layers) {
  std::vector<std::int64_t> all = part.boundaries;
  for (std::int64_t i = 1; part.boundaries.empty() && i <= 4; ++i) {
    const std::int64_t boundary = std::max<std::int64_t>(1, i * layers / 4);
    if (all.empty() || all.back() != boundary) all.push_back(boundary);
  }
  for (const std::int64_t boundary : all) {
    require<UsageError>(boundary >= 1 && boundary <= layers, "distill.hidden",
                        "boundaries must be in [1, ", layers, "], got ", boundary);
  }
  return all;
}

std::int64_t HiddenLoss::teacher_boundary(std::int64_t boundary, std::int64_t student_layers,
                                          std::int64_t teacher_layers) {
  return (2 * boundary * teacher_layers + student_layers) / (2 * student_layers);
}

HiddenLoss::HiddenLoss(const HiddenPart& part, const ModelConfig& student,
                       const ModelConfig& teacher)
    : massive_(part.massive),
      learns_(part.projection == "learned"),
      projects_(learns_ || part.projection == "closed" ||
                (part.projection == "auto" && student.hidden != teacher.hidden)) {
  require<UsageError>(part.projection != "none" || student.hidden == teacher.hidden,
                      "distill.hidden", "projection: none needs equal widths, got ", student.hidden,
                      " and ", teacher.hidden);
  for (const std::int64_t boundary : boundaries_of(part, student.layers)) {
    places_.push_back({boundary, teacher_boundary(boundary, student.layers, teacher.layers)});
  }
}

void HiddenLoss::look(const Activations& student, const LiveTeacher& teacher) {
  const std::int64_t length = student.ids.size(1);
  for (Place& place : places_) {
    const at::Tensor wanted = teacher.state(place.teacher);
    if (!place.scales.inverse_deviation.defined()) {
      place.scales = channel_scales(wanted.flatten(0, 1), massive_);
    }
    if (!projects_) continue;
    const at::Tensor own = student.inputs[static_cast<std::size_t>(place.student)].detach();
    const auto counted = [&](const at::Tensor& states) {  // as counts_of
      return states.narrow(1, 1, length - 1).flatten(0, 1);
    };
    place.sums.add(counted(own), counted(wanted));
  }
}

void HiddenLoss::settle(Student& student) {
  if (!projects_) return;
  for (Place& place : places_) {
    place.projection = place.sums.solve();
    place.sums = {};
    if (learns_) {
      place.parameter = student.parameters().size();
      student.parameters().push_back({.name = "projection." + std::to_string(place.parameter),
                                      .value = place.projection.requires_grad_(true),
                                      .decays = false});
    }
  }
}

double HiddenLoss::add(std::int64_t boundary, const at::Tensor& state, const at::Tensor& counts,
                       const LiveTeacher& teacher, std::int64_t first, double weight, double scale,
                       Student& student, at::Tensor& total) const {
  double loss = 0;
  for (const Place& place : places_) {
    if (place.student != boundary) continue;
    const double share = 1 / static_cast<double>(places_.size());
    const at::Tensor wanted = teacher.state(place.teacher).narrow(0, first, state.size(0));
    const HiddenGradient found =
        hidden_gradient(state.detach().flatten(0, 1), wanted.flatten(0, 1),
                        place.projection.defined() ? place.projection.detach() : at::Tensor(),
                        place.scales, counts, weight * share * scale);
    loss += share * found.loss;
    total.add_(found.student.view(total.sizes()));
    if (place.parameter != kNone) {
      student.parameters()[place.parameter].gradient.add_(found.projection);
    }
  }
  return loss;
}

namespace {

// The block that is named, or, with -1, `block` or the last with attention before it.
std::int64_t block_with_attention(std::int64_t named, std::int64_t block, const ModelConfig& config,
                                  std::string_view option) {
  if (named < 0) {
    while (block > 0 && !config.widths_of(block).attends()) --block;
    named = block;
  }
  require<UsageError>(named < config.layers, "distill.relation", option, " must be below ",
                      config.layers, ", got ", named);
  require<UsageError>(config.widths_of(named).attends(), "distill.relation", "block ", named,
                      " has no attention; name another by ", option);
  return named;
}

}  // namespace

std::int64_t RelationLoss::teacher_block_of(const RelationPart& part, const ModelConfig& teacher) {
  return block_with_attention(part.teacher_block,
                              std::max<std::int64_t>(0, teacher.layers * 3 / 4 - 1), teacher,
                              "teacher_block");
}

RelationLoss::RelationLoss(const RelationPart& part, const ModelConfig& student,
                           const ModelConfig& teacher)
    : student_block_(
          block_with_attention(part.student_block, student.layers - 1, student, "student_block")),
      teacher_block_(teacher_block_of(part, teacher)) {
  const ModelConfig own = student.of_block(student_block_),
                    other = teacher.of_block(teacher_block_);
  const std::int64_t queries = relation_heads({own.q_width(), other.q_width()});
  const std::int64_t values = relation_heads({own.kv_width(), other.kv_width()});
  heads_[0] = queries, heads_[1] = heads_[2] = values;
  if (part.heads == 0) return;
  for (std::int64_t& heads : heads_) heads = part.heads;
  for (const std::int64_t width :
       {own.q_width(), other.q_width(), own.kv_width(), other.kv_width()}) {
    require<UsageError>(width % part.heads == 0, "distill.relation", "heads must divide ", width,
                        ", got ", part.heads);
  }
}

double RelationLoss::add(const at::Tensor& input, const LiveTeacher& teacher, std::int64_t first,
                         double weight, double scale, Student& student, at::Tensor& total) const {
  const at::AutoGradMode with(true);
  const Block& block = student.learning_block(student_block_);
  const at::Tensor x = input.detach().requires_grad_(true);
  const at::Tensor normed = rms_norm(x, block[Norm::kAttention], student.config().norm_eps);
  const Projections& wanted = teacher.projections(teacher_block_);
  const at::Tensor* targets[] = {&wanted.query, &wanted.key, &wanted.value};
  const double eps = student.config().norm_eps;
  std::vector<at::Tensor> outputs = {
      norm_heads(block[Role::kQuery].forward(normed), block[Norm::kQuery], eps),
      norm_heads(block[Role::kKey].forward(normed), block[Norm::kKey], eps),
      block[Role::kValue].forward(normed)};
  std::vector<at::Tensor> gradients;
  double loss = 0;
  for (int i = 0; i < 3; ++i) {
    const RelationGradient found =
        relation_gradient(outputs[i].detach(), targets[i]->narrow(0, first, input.size(0)),
                          heads_[i], weight * scale);
    gradients.push_back(found.student);
    loss += found.loss;
  }
  std::vector<at::Tensor> leaves = student.block_leaves(student_block_);
  leaves.push_back(x);
  auto found = torch::autograd::grad(outputs, leaves, gradients, /*retain_graph=*/false,
                                     /*create_graph=*/false, /*allow_unused=*/true);
  const at::NoGradGuard none;
  total.add_(found.back());
  found.pop_back();
  student.add_block_gradients(student_block_, found);
  return loss;
}

}  // namespace attar
