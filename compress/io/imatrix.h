// Importance matrices of llama.cpp: for every input column of a layer the mean of x^2 over a
// calibration text. Two forms: a GGUF file (general.type "imatrix"), and the older .dat.
//
//   .dat   i32 entries x (i32 length, name, i32 calls, i32 columns, f32 sum[columns]), then
//          i32 chunks, i32 length, name of the text; mean = sum / calls
//   GGUF   tensors NAME.in_sum2 [columns] and NAME.counts [1]; mean = in_sum2 / counts; keys
//          imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace attar::io {

struct ImportanceMatrix {
  std::map<std::string, std::vector<float>, std::less<>> means;  // "blk.0.attn_q.weight" -> columns
  std::vector<std::string> texts;                                // what it was calibrated on
  std::uint32_t chunks = 0;
  std::uint32_t chunk_size = 0;  // tokens; 0: unknown
};

// Throws IoError; BadInput (file and what is wrong) for a damaged file, a mean that is negative or
// not finite, and matrices of experts (several a tensor).
ImportanceMatrix read_importance_matrix(const std::filesystem::path& path);

// `path` ends in .dat for the older form, else a GGUF file is written. A mean is one sum of one
// count, so that reading gives the same bits.
void write_importance_matrix(const std::filesystem::path& path, const ImportanceMatrix& matrix);

}  // namespace attar::io
