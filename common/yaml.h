/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libcyaml does not look at, over libyaml's events: the text itself (UTF-8, no NUL),
 * constructs that we refuse (aliases, anchors, tags, several documents, empty values, deep
 * nesting), and on which line a key is. A path is "kms.mode" or "backends[1].hsm.pin". For
 * common/conf.c.
 */
#ifndef KMS_COMMON_YAML_H
#define KMS_COMMON_YAML_H

#include <stddef.h>

#include "common/status.h"

#define KMS_YAML_PATH_MAX 256 /* with NUL; longer paths are cut */

/* KMS_E_INVALID with "NAME:LINE: PATH: what is wrong". */
enum kms_status kms_yaml_check(const char *name, const char *content, size_t len,
                               struct kms_error *err) KMS_MUST_CHECK;

/* The line of @path, from 1; 0 when @content has no such key. */
size_t kms_yaml_line(const char *content, size_t len, const char *path);

#endif
