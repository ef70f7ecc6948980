// Codes that learn: a weight keeps a place u between the codes (of a table or a number format:
// between the numbers of its levels in their order) and is the value of the nearest code; gradients
// pass through the rounding as if it were not there (SignRound, Cheng et al. 2023,
// arXiv:2309.05516). Scales and real minima of single groups may learn beside them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/weight.h"
#include "compress/train/adamw.h"

namespace attar {

// Scales of a super-block are small integers times a number that they share, and those of number
// formats are powers of two or those of whole rows: they stay.
bool scales_learn(const QuantScheme& scheme);

// Scales (round_scale) or real minima (round_to) as a file of `type` will hold them, each rounded
// by itself; 0 stays 0.
at::Tensor as_stored(const at::Tensor& values, at::ScalarType type,
                     float (*round)(float, at::ScalarType));

// One weight matrix [O, I]. Its parameters stand in a list of the caller's, which is what an
// optimizer moves.
class LearntCodes {
 public:
  // Appends to `parameters`: places (NAME.codes, in steps from one code to the next), and with
  // `scales` NAME.scale and NAME.minimum. Places begin within the reach of the codes that are
  // there, so that the start changes nothing:
  //   plain  [O, I] float32, the weight before it was rounded: as near to it as its code allows
  //   kept   [O, I] bool: where a mask of an earlier pass does not hold 0; undefined: no mask. It
  //          counts on grids that hold 0
  LearntCodes(const QuantizedWeight& start, const at::Tensor& plain, const at::Tensor& kept,
              bool scales, std::vector<Parameter>& parameters);
  // Where the plain weight is gone: places are drawn evenly, by `seed` and `name`, so that with a
  // given push the more codes change the harder it is. (From the middle none would until many do at
  // once.) `rate`: times the learning rate, of places.
  LearntCodes(const QuantizedWeight& start, bool scales, std::vector<Parameter>& parameters,
              const std::string& name, double rate, std::uint64_t seed);

  // [O, I] float32, a leaf: the values as they were last written.
  const at::Tensor& values() const { return values_; }
  // Codes and values of the parameters as they are.
  void write(const std::vector<Parameter>& parameters);
  // Adds the gradient of the values, `gradient` [O, I], to those of the parameters.
  void add_gradient(at::Tensor gradient, std::vector<Parameter>& parameters) const;
  // As the file will hold it: scales and minima rounded. `averaged`: of the averages, where there
  // are any.
  QuantizedWeight settled(const std::vector<Parameter>& parameters, bool averaged) const;

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  // What the codes of a grid stand for, in the order of their values.
  struct CodeRow {
    std::vector<float> level;        // ascending; empty: evenly spaced, the number is the code
    std::vector<std::uint8_t> code;  // of each level
    std::vector<int> number;         // [256]: of each code
  };
  static CodeRow code_row(const QuantScheme& scheme);

  LearntCodes(const QuantizedWeight& start, const at::Tensor& kept);
  // Places and, with `scales`, the grid join the parameters.
  void join(const at::Tensor& place, bool scales, std::vector<Parameter>& parameters,
            const std::string& name, double rate);
  QuantizedWeight on_grid(const std::vector<Parameter>& parameters, bool averaged) const;
  void encode(const at::Tensor& place, QuantizedWeight& weight, float* values) const;
  // [O, I]: wish(i, group, number) or, where that is out of its reach, as far as the code goes.
  template <class Wish>
  at::Tensor places(const Wish& wish) const;
  float place_in_row(float x) const;
  float step_at(std::uint8_t code) const;

  QuantizedWeight codes_;  // as last written
  CodeRow row_;
  float top_;                                                    // the number of the last level
  at::Tensor kept_;                                              // [O, I] uint8, or undefined
  at::Tensor values_;                                            // [O, I]
  std::size_t place_ = kNone, scale_ = kNone, minimum_ = kNone;  // in the list of parameters
};

}  // namespace attar
