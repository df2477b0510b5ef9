#pragma once
// How the command ends where an exception ended its work.
#include <exception>
#include <string>

namespace lathe {

struct Failure {
  int status = 1;       ///< the exit status: 2 for what the user can mend, 1 for a fault of ours
  std::string message;  ///< one line
};
Failure failure_of(const std::exception_ptr& thrown);

}  // namespace lathe
