/* SPDX-License-Identifier: Apache-2.0 */
/* Dates of HTTP, whose names of days and months no locale changes: RFC 9110 5.6.7. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/rest/http.h"

struct date {
    unsigned day, year, hour, minute, second;
    char month[4];
};

/* All six are read, and nothing stands behind them. */
static bool is_whole(const char *text, int read, int end)
{
    return read == 6 && end > 0 && text[end] == '\0';
}

static bool read_usual(const char *text, struct date *d)
{
    int end = 0;
    int read = sscanf(text, "%*3[A-Za-z], %2u %3[A-Za-z] %4u %2u:%2u:%2u GMT%n", &d->day, d->month,
                      &d->year, &d->hour, &d->minute, &d->second, &end);

    return is_whole(text, read, end);
}

/* RFC 850's */
static bool read_dashed(const char *text, struct date *d)
{
    int end = 0;
    int read = sscanf(text, "%*9[A-Za-z], %2u-%3[A-Za-z]-%2u %2u:%2u:%2u GMT%n", &d->day, d->month,
                      &d->year, &d->hour, &d->minute, &d->second, &end);

    return is_whole(text, read, end);
}

/* C's asctime()'s */
static bool read_c(const char *text, struct date *d)
{
    int end = 0;
    int read = sscanf(text, "%*3[A-Za-z] %3[A-Za-z] %2u %2u:%2u:%2u %4u%n", d->month, &d->day,
                      &d->hour, &d->minute, &d->second, &d->year, &end);

    return is_whole(text, read, end);
}

/* 0 to 11, or 12 for none. */
static int month_of(const char *name)
{
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int month = 0;

    while (month < 12 && strcmp(months[month], name) != 0) {
        month++;
    }
    return month;
}

/* Two digits are of the last hundred years up to fifty from now; what is retried is not so old. */
static unsigned whole_year(unsigned year)
{
    return year < 70 ? year + 2000 : year < 100 ? year + 1900 : year;
}

int64_t kms_http_date(const char *text)
{
    struct date date = {.day = 0};
    struct tm tm;

    if (!read_usual(text, &date) && !read_dashed(text, &date) && !read_c(text, &date)) {
        return 0;
    }
    memset(&tm, 0, sizeof(tm));
    tm.tm_mon = month_of(date.month);
    date.year = whole_year(date.year);
    if (tm.tm_mon > 11 || date.day < 1 || date.day > 31 || date.year < 1970 || date.year > 9999 ||
        date.hour > 23 || date.minute > 59 || date.second > 60) { /* 60: a leap second */
        return 0;
    }
    tm.tm_mday = (int)date.day;
    tm.tm_year = (int)date.year - 1900;
    tm.tm_hour = (int)date.hour;
    tm.tm_min = (int)date.minute;
    tm.tm_sec = (int)date.second;
    return (int64_t)timegm(&tm);
}
