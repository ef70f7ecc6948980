// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over a list of parameters, with clipping by
// the global norm and an average of the weights. Elementwise in float32; the norm is summed over
// fixed chunks in double: threads change no bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace attar {

// One tensor that learns.
struct Parameter {
  std::string name;
  at::Tensor value;     // float32, contiguous, requires gradients
  at::Tensor gradient;  // like value; added to by the student, zeroed by AdamW
  bool decays = true;   // weight decay: matrices, not norms and biases
  double rate = 1;      // times the learning rate
  at::Tensor keep;      // like value, 1 and 0: what is 0 stays 0; undefined: everything moves
  // Like value, > 0: gradient and steps are those of value / unit, so that a learning rate is a
  // share of this size; undefined: 1.
  at::Tensor unit;
  at::Tensor first, second, average;  // moments, and the average when there is one
};

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;     // largest global norm of the gradient; 0: none
  double average = 0.0;  // decay of the average of the weights (EMA); 0: none
};

// Warm-up from 0, then a cosine from `peak` down to `floor` * peak at the last step.
struct Schedule {
  double peak = 1e-4;
  double floor = 0.1;
  std::int64_t warmup = 0;  // steps
  std::int64_t steps = 1;
  double at(std::int64_t step) const;  // of step 0, 1, ...
};

// Makes moments (and averages, equal to the values) that are not there yet.
void prepare(std::vector<Parameter>& parameters, const AdamWConfig& config);

// One update with the gradients that have been added up, which are zero afterwards. `step` counts
// from 0. Returns the norm of the gradient before clipping; when it is not finite nothing is
// changed but the gradients.
double adamw_step(std::vector<Parameter>& parameters, const AdamWConfig& config, double rate,
                  std::int64_t step);

}  // namespace attar
