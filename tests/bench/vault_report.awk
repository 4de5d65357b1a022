# SPDX-License-Identifier: Apache-2.0
# The tables of tests/bench/vault.sh from its results: "WHO WHAT {JSON}" lines.
function field(name) { return match($0, "\"" name "\":[0-9.]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : "" }
function median(key,   n, i, j, t, v) {
    n = split(values[key], v, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n ? v[int((n + 1) / 2)] + 0 : 0
}
{
    callers = field("callers") != "" ? field("callers") : field("threads")
    key = $1 " " $2 " " callers
    if (!(key in seen)) { seen[key] = 1; order[++rows] = key }
    values[key, "rate"] = values[key, "rate"] " " field("per_second")
    values[key, "p50"] = values[key, "p50"] " " field("p50_us")
    values[key, "p99"] = values[key, "p99"] " " field("p99_us")
    values[key, "cpu"] = values[key, "cpu"] " " field("cpu_us_per_call")
    values[key, "rss"] = values[key, "rss"] " " field("rss_kib")
    values[key, "private"] = values[key, "private"] " " field("private_kib")
}
function compare(what, ours, theirs, n,   r) {
    r = median(ours) / median(theirs)
    printf "| %s | %s | %.2f | %s |\n", what, n, r, (r < 1 ? "yes" : "no")
}
function against(peer, n,   m, q, method, p) {
    if (!(peer " Encrypt " n in seen)) return
    split("Encrypt Decrypt", method, " "); split("p50 p99", p, " ")
    for (m = 1; m <= 2; m++) for (q = 1; q <= 2; q++)
        compare("ahead of " peer ", " method[m] " " p[q], "kmsbridged " method[m] " " n SUBSEP p[q], peer " " method[m] " " n SUBSEP p[q], n)
    compare("less private memory than " peer, "kmsbridged Encrypt " n SUBSEP "private", peer " Encrypt " n SUBSEP "private", n)
    compare("less resident memory than " peer, "kmsbridged Encrypt " n SUBSEP "rss", peer " Encrypt " n SUBSEP "rss", n)
}
function floor(who, name, n,   r) {
    r = median(who " " n SUBSEP "rate") / median(name " Encrypt " n SUBSEP "rate")
    printf "| %s: 90 %% of %s, Encrypt | %s | %.2f | %s |\n", label[who], name, n, r, (r >= 0.9 ? "yes" : "no")
}
END {
    print "| who | what | callers | calls/s | p50 | p99 | own CPU us/call | private MiB | resident MiB |"
    print "|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= rows; i++) {
        key = order[i]; split(key, k, " ")
        if (k[3] == "" || median(key SUBSEP "rate") == 0) { print "no figures for " key >"/dev/stderr"; exit 1 }
        cpu = median(key SUBSEP "cpu"); rss = median(key SUBSEP "rss") / 1024
        private = median(key SUBSEP "private") / 1024
        printf "| %s | %s | %s | %d | %d | %d | %s | %s | %s |\n", k[1], k[2], k[3], median(key SUBSEP "rate"), \
            median(key SUBSEP "p50"), median(key SUBSEP "p99"), cpu ? sprintf("%.0f", cpu) : "-", \
            private ? sprintf("%.1f", private) : "-", rss ? sprintf("%.1f", rss) : "-"
    }
    print ""
    print "| target | callers | measured | met |"
    print "|---|---|---|---|"
    split("1 8 64", n, " ")
    label["kmsbridged Encrypt"] = "kmsbridged"; label["grpc-floor Encrypt"] = "grpc-floor"
    label["hop-floor Encrypt"] = "hop-floor"; label["module sealed-32"] = "module"
    for (i = 1; i <= 3; i++) {
        if (!("kmsbridged Encrypt " n[i] in seen)) continue
        floor("kmsbridged Encrypt", "floor", n[i])
        floor("kmsbridged Encrypt", "floor-h2", n[i])
        floor("kmsbridged Encrypt", "grpc-floor", n[i])
        floor("grpc-floor Encrypt", "floor", n[i])
        floor("module sealed-32", "floor", n[i])
        floor("module sealed-32", "hop-floor", n[i])
        floor("hop-floor Encrypt", "floor", n[i])
        against("go-vkk", n[i])
        against("go-least", n[i])
        against("go-same", n[i])
    }
}
