#include "eval/wikitext.h"

#include "compress/core/errors.h"
#include "eval/json_lines.h"
#include "eval/python_text.h"
#include "eval/task_files.h"

namespace attar::eval {
namespace {

bool looks_like_title(std::string_view line) {
  const std::string closed = replace_all(replace_all(line, "= = =", "==="), "= =", "==");
  const std::string_view text = strip(closed);
  return text.starts_with("= ") && text.ends_with(" =");
}

// Trims the whitespace inside every pair `open ... close` that holds no other `close`:
// re.sub(r"OPEN\s*([^CLOSE]*?)\s*CLOSE", r"OPEN\1CLOSE").
std::string close_up(std::string_view text, char open, char close) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t begin; (begin = text.find(open, at)) != std::string_view::npos;) {
    const std::size_t end = text.find(close, begin + 1);
    if (end == std::string_view::npos) break;
    result.append(text.substr(at, begin + 1 - at));
    result.append(strip(text.substr(begin + 1, end - begin - 1))).push_back(close);
    at = end + 1;
  }
  return result.append(text.substr(at));
}

// re.sub(r"/' [0-9]/", r"/'[0-9]/"): the slashes are meant by sed and taken literally by Python, as
// is the class in the replacement.
std::string stray_rule(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    const bool matches = rest.size() >= 5 && rest.starts_with("/' ") && rest[3] >= '0' &&
                         rest[3] <= '9' && rest[4] == '/';
    result += matches ? "/'[0-9]/" : std::string(1, rest[0]);
    at += matches ? 5 : 1;
  }
  return result;
}

struct Rule {
  std::string_view from;
  std::string_view to;
};

constexpr Rule kBeforeBrackets[] = {
    {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},  // inside of words and numbers
    {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},   // blank before punctuation
    {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "},
};

constexpr Rule kAfterBrackets[] = {
    {"= = = =", "===="}, {"= = =", "==="},
    {"= =", "=="},       {" \xC2\xB0 ", "\xC2\xB0"},  // U+00B0, the degree sign
    {" \n", "\n"},       {"\n ", "\n"},
    {" N ", " 1 "},      {" 's", "'s"},
};

}  // namespace

std::vector<std::string> cut_pages(std::string_view text) {
  std::vector<std::string> pages;
  std::size_t page_begin = 0;
  for (std::size_t line_begin = 0; line_begin <= text.size();) {
    const std::size_t line_end = std::min(text.find('\n', line_begin), text.size());
    if (line_begin > 0 && looks_like_title(text.substr(line_begin, line_end - line_begin))) {
      const std::string_view page = text.substr(page_begin, line_begin - 1 - page_begin);
      if (!strip(page).empty()) pages.emplace_back(page);
      page_begin = line_begin;
    }
    line_begin = line_end + 1;
  }
  pages.emplace_back(text.substr(page_begin));
  return pages;
}

std::string detokenize(std::string_view page) {
  std::string text = stray_rule(replace_all(page, "s '", "s'"));
  for (const Rule& rule : kBeforeBrackets) text = replace_all(text, rule.from, rule.to);
  text = close_up(text, '(', ')');
  text = close_up(text, '[', ']');
  text = close_up(text, '{', '}');
  text = close_up(text, '"', '"');
  text = close_up(text, '\'', '\'');
  for (const Rule& rule : kAfterBrackets) text = replace_all(text, rule.from, rule.to);
  return text;
}

std::optional<Task> open_wikitext(std::string_view name, const TaskOptions& options) {
  if (name != "wikitext") return std::nullopt;
  Task task;
  task.name = task.alias = "wikitext";
  task.version = "2.0";
  task.kind = TaskKind::kRolling;
  for (const char* metric : {"word_perplexity", "byte_perplexity", "bits_per_byte"}) {
    task.metrics.push_back({.name = metric, .higher_is_better = false});
  }
  require<UsageError>(shots_of(options, 0, task.name) == 0, task.name,
                      "a rolling task takes no shots");
  require<UsageError>(!options.max_length || *options.max_length >= 2, task.name,
                      "max_length must be at least 2, got ", options.max_length.value_or(0));
  task.max_length = options.max_length;
  task.source = evaluated_file(options, "wikitext2_test.raw.txt");

  // Python reads text with universal line ends.
  const std::string text =
      replace_all(replace_all(read_text(task.source), "\r\n", "\n"), "\r", "\n");
  require(!text.empty(), task.source.string(), "the file is empty");
  const std::vector<std::string> pages = cut_pages(text);
  task.documents_in_source = static_cast<std::int64_t>(pages.size());
  const std::int64_t count = documents_to_make(options, task.documents_in_source, task.name);
  for (std::int64_t i = 0; i < count; ++i) {
    Document document;
    document.index = i;
    document.contexts = {detokenize(pages[i])};
    document.targets = {""};
    document.words = count_words(pages[i]);
    document.bytes = static_cast<std::int64_t>(pages[i].size());
    task.documents.push_back(std::move(document));
  }
  drop_skipped(options, task.documents);
  return task;
}

}  // namespace attar::eval
