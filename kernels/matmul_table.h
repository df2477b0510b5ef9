#pragma once
// The choices of algorithms for products as text, which travels between processes and from a run to its continuation. Internal to kernels/.
#include <map>
#include <string>
#include <string_view>

#include "lathe/kernels/matmul_library.h"

namespace lathe {

struct MatmulTable {
  std::string library;  ///< MatmulLibrary::name()
  std::map<MatmulProblem, MatmulAlgorithm> choices;

  bool operator==(const MatmulTable&) const = default;
};

/// JSON lines: {"matrix products": library}, then for each problem an object of its fields (column-major, as MatmulProblem has them) and
/// "algorithm", its bits in hexadecimal digits.
std::string to_text(const MatmulTable& table);

/// Throws std::invalid_argument, with the line, where the text is none of those.
MatmulTable matmul_table(std::string_view text);

}  // namespace lathe
