// What a student is held to: losses by name, with weights, added up.
//
//   loss: forward_kl
//   loss: {forward_kl: {weight: 0.9, temperature: 2}, cross_entropy: {weight: 0.1}}
//   loss: [{forward_kl: {until: 0.8}}, {skew_reverse: {from: 0.8}}, {hidden: {weight: 0.1}}]
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compress/train/response_gradient.h"
#include "distill/taid.h"

namespace attar {

// The share of the training in which a loss counts: steps [from, until).
struct ActiveShare {
  double from = 0;
  double until = 1;
  bool holds(std::int64_t step, std::int64_t steps) const {
    const double done = static_cast<double>(step) / static_cast<double>(steps);
    return done >= from && (done < until || until >= 1);
  }
};

// On the distribution over the vocabulary.
struct ResponsePart {
  std::string name;
  ResponseTerm term;
  ActiveShare active;
  std::optional<TaidConfig> taid;
};

// Hidden states at block boundaries: mean of ((student P - teacher) / deviation of the teacher)^2
// over tokens but the first of a sequence and channels but the massive ones.
struct HiddenPart {
  double weight = 1;
  ActiveShare active;
  std::vector<std::int64_t> boundaries;  // of the student, 1..layers; empty: four evenly spaced
  std::string projection = "auto";       // auto | learned | closed | none
  double massive = 100;  // channels whose mean square exceeds so many times the median are left out
};

// MiniLMv2 (Wang et al. 2021, arXiv:2012.15828): KL between softmax(X X^T / sqrt(d)) of teacher and
// student for X = queries, keys and values of one block each, cut into relation heads.
struct RelationPart {
  double weight = 1;
  ActiveShare active;
  std::int64_t student_block = -1;  // -1: the last with attention
  std::int64_t teacher_block = -1;  // -1: three quarters up, "upper middle"
  std::int64_t heads = 0;           // 0: the most, up to 64, that divide all widths
};

struct LossPlan {
  std::vector<ResponsePart> responses;
  std::vector<HiddenPart> hidden;
  std::vector<RelationPart> relations;

  bool needs_teacher() const;  // something beside cross entropy
};

// Throws UsageError for unknown losses and options, naming the known ones.
LossPlan read_losses(const nlohmann::json& losses, const std::string& where);

}  // namespace attar
