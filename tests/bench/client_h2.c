/* SPDX-License-Identifier: Apache-2.0 */
/* The lean client: HTTP/2 by libnghttp2, one thread, one connection, a stream for each caller. */
#include "tests/bench/h2.h"

int main(int argc, char **argv)
{
    return bench_main("h2", h2_run, argc, argv);
}
