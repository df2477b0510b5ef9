#include "tools/json_rows.h"

#include <fmt/format.h>

#include <utility>

namespace lathe {

JsonRows::JsonRows(LineOutput& output, const std::string& head, std::string_view name)
    : output_(output),
      pending_(fmt::format("{}{}\"{}\":[\n", std::string_view(head).substr(0, head.size() - 1), head == "{}" ? "" : ",", name)) {}

bool JsonRows::add(const std::string& row) { return output_.write(std::exchange(pending_, ",\n") + row); }

bool JsonRows::finish(bool complete) {
  // Without a row the list has yet to begin.
  const std::string begin = pending_ == ",\n" ? "" : pending_;
  return output_.write(fmt::format("{}\n],\"complete\":{}}}\n", begin, complete));
}

}  // namespace lathe
