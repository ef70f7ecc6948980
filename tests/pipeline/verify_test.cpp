#include "compress/pipeline/verify.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::random_model;

// The file's own quantizer makes what it likes of the logits; it makes no layer another one.
TEST(VerifyExport, SeesTwoLayersThatChangedPlacesHoweverCoarseTheFileIs) {
  const io::testing::TemporaryFolder folder;
  const Model model = random_model();
  ExportOptions options;
  options.format = ExportFormat::kGguf;
  options.type = "Q4_0";
  options.requantize = true;
  const ExportReport report = export_model(model, folder / "m.gguf", options);
  const at::Tensor ids = verify_tokens(model.config(), {});
  EXPECT_TRUE(verify_export(model, report, options, ids, [] {}).holds);
  Model swapped = random_model();
  Block block = swapped.block(1);
  std::swap(block[Role::kGate], block[Role::kUp]);
  swapped.put_block(1, block);
  const VerifyReport found = verify_export(swapped, report, options, ids, [] {});
  EXPECT_FALSE(found.holds);
  EXPECT_THAT(found.bound, ::testing::HasSubstr("model.layers.1.mlp.gate_proj is not"));
}

}  // namespace
}  // namespace attar
