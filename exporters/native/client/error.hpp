// What a user can mend: one sentence for stderr.
#pragma once

#include <stdexcept>

namespace polyprompt {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace polyprompt
