// Compiled, linked and run once after staging: shows in seconds what torch-sys would show after minutes,
// such as a compiler too old for the headers or a C library too old for the libraries.

#include <ATen/Parallel.h>
#include <torch/version.h>

static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11 && TORCH_VERSION_PATCH == 0);

int main() {
  return at::get_num_threads() > 0 ? 0 : 1;
}
