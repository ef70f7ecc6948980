#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "compress/pipeline/evaluate.h"

namespace attar {
namespace {

TEST(EvalStepFromText, TakesACommaThatNoKeyFollowsAsPartOfTheValue) {
  const EvalStep step = eval_step_from("perplexity:text=some, text,2.txt,length=64,windows=3");
  EXPECT_EQ(step.name, "perplexity");
  EXPECT_EQ(step.text.text, "some, text,2.txt");
  EXPECT_EQ(step.text.length, 64);
  EXPECT_EQ(step.text.windows, 3);
}

TEST(EvalStepFromText, ReadsATaskWithAndWithoutOptions) {
  const EvalStep step = eval_step_from("arc_easy:path=data,limit=100");
  EXPECT_EQ(step.task.path, "data");
  EXPECT_EQ(step.task.limit, 100);
}

TEST(EvalStepFromText, ReadsTheBitsOfKeysAndValues) {
  EXPECT_EQ(eval_step_from("divergence:text=a.txt,kv_bits=8").text.kv_bits, 8);
  EXPECT_EQ(eval_step_from("divergence:text=a.txt").text.kv_bits, 32);
  EXPECT_THROW(eval_step_from("divergence:text=a.txt,kv_bits=6"), UsageError);
}

TEST(EvalStepFromText, RefusesWhatIsNoPair) {
  for (const char* wrong : {"perplexity:", "perplexity:wiki.txt", "perplexity:=3",
                            "perplexity:length=64,", "perplexity:text=a,lenght=64"}) {
    EXPECT_THROW(eval_step_from(wrong), UsageError) << wrong;
  }
}

}  // namespace
}  // namespace attar
