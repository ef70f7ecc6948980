#include "compress/calibrate/importance.h"

#include "compress/calibrate/stream.h"
#include "compress/core/errors.h"
#include "compress/families/family.h"

namespace attar {
namespace {

std::vector<float> means_of(const linalg::GramStatistics& statistics, const std::string& name) {
  require<NumericRefusal>(statistics.dropped == 0, name, statistics.dropped, " of ",
                          statistics.dropped + statistics.tokens,
                          " calibration tokens have a NaN or an infinity before this layer; look "
                          "at the weights and norms before it");
  const at::Tensor sums = statistics.sum_squares.contiguous();
  const double* sum = sums.const_data_ptr<double>();
  std::vector<float> means(static_cast<std::size_t>(sums.size(0)));
  for (std::size_t j = 0; j < means.size(); ++j) {
    means[j] = static_cast<float>(sum[j] / static_cast<double>(statistics.tokens));
  }
  return means;
}

}  // namespace

io::ImportanceMatrix importance_matrix(const Model& model, const CalibrationTokens& tokens,
                                       std::int64_t batch, const RunContext& context) {
  const TensorNames& names = family_named(model.config().family).gguf;
  io::ImportanceMatrix matrix;
  matrix.chunks = static_cast<std::uint32_t>(tokens.ids.size(0));
  matrix.chunk_size = static_cast<std::uint32_t>(tokens.ids.size(1));
  StreamOptions options;
  options.batch = batch;
  BlockStream stream(model, tokens, options);
  for (std::int64_t index = 0; index < model.config().layers; ++index) {
    context.check_stop();
    context.progress(layer_name(index, Role::kDown));
    const Block block = model.block(index);
    const auto found = stream.collect(block, context);
    for (const Role role : roles_of(block)) {
      const std::string name = fill(names.of(role), index) + ".weight";
      matrix.means[name] = means_of(*found[index_of(site_of(role))], name);
    }
    stream.advance(block);
    model.done_with_block(index);
  }
  return matrix;
}

}  // namespace attar
