// SIGINT and SIGTERM: the first asks for a stop at the next safe point, the second ends at once.
#pragma once

#include <atomic>

namespace attar::cli {

// Installs the handlers; the flag is what RunContext::stop looks at.
const std::atomic<bool>& stop_flag();

}  // namespace attar::cli
