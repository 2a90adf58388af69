// SPDX-License-Identifier: MIT
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "render/number.h"

/* ---- integers ---- */

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
			    "25262728293031323334353637383940414243444546474849"
			    "50515253545556575859606162636465666768697071727374"
			    "75767778798081828384858687888990919293949596979899";

char *lbl_write_u64(char *to, uint64_t value)
{
	char digits[20], *at = digits + sizeof(digits);
	size_t n;

	while (value >= 100) {
		at -= 2;
		memcpy(at, pairs + 2 * (value % 100), 2);
		value /= 100;
	}
	if (value >= 10) {
		at -= 2;
		memcpy(at, pairs + 2 * value, 2);
	} else {
		*--at = (char)('0' + value);
	}
	n = (size_t)(digits + sizeof(digits) - at);
	memcpy(to, at, n);
	return to + n;
}

/* `n` digits, with leading zeros. */
static char *write_padded(char *to, uint64_t value, int n)
{
	int i;

	for (i = n; i--; value /= 10)
		to[i] = (char)('0' + value % 10);
	return to + n;
}

static char *write_u128(char *to, lbl_u128 value)
{
	const uint64_t split = 10000000000000000000ULL;

	if (value < split)
		return lbl_write_u64(to, (uint64_t)value);
	return write_padded(write_u128(to, value / split), (uint64_t)(value % split), 19);
}

char *lbl_write_seconds(char *to, lbl_u128 ns)
{
	to = write_u128(to, ns / 1000000000);
	*to++ = '.';
	to = write_padded(to, (uint64_t)(ns % 1000000000), 9);
	while (to[-1] == '0' && to[-2] != '.')
		to--;
	return to;
}

/* ---- doubles ---- */

double lbl_seconds(lbl_u128 ns)
{
	char text[LBL_NUMBER_MAX];

	if (ns < 1ULL << 53) /* the only rounding is that of the division */
		return (double)ns / 1e9;
	strcpy(write_u128(text, ns), "e-9");
	return strtod(text, NULL);
}

/* The fewest significant digits of a positive value, and the power of ten of the first. */
static int shortest(double value, char *digits, int *ret_exponent)
{
	char text[40];
	int precision, n = 0;
	char *at;

	for (precision = 15; precision <= 17; precision++) {
		snprintf(text, sizeof(text), "%.*e", precision - 1, value);
		if (strtod(text, NULL) == value)
			break;
	}
	for (at = text; *at != 'e'; at++) {
		if (*at >= '0' && *at <= '9') /* the point is another one in other locales */
			digits[n++] = *at;
	}
	*ret_exponent = atoi(at + 1);
	while (n > 1 && digits[n - 1] == '0')
		n--;
	return n;
}

static char *write_scientific(char *to, const char *digits, int n, int exponent)
{
	*to++ = digits[0];
	if (n > 1) {
		*to++ = '.';
		memcpy(to, digits + 1, (size_t)n - 1);
		to += n - 1;
	}
	*to++ = 'e';
	*to++ = exponent < 0 ? '-' : '+';
	exponent = abs(exponent);
	return exponent < 100 ? write_padded(to, (uint64_t)exponent, 2)
			      : lbl_write_u64(to, (uint64_t)exponent);
}

static char *write_fixed(char *to, const char *digits, int n, int exponent)
{
	int i;

	if (exponent < 0)
		*to++ = '0';
	for (i = 0; i <= exponent; i++)
		*to++ = i < n ? digits[i] : '0';
	*to++ = '.';
	for (i = exponent + 1; i < 0; i++)
		*to++ = '0';
	if (n <= exponent + 1)
		*to++ = '0';
	for (i = exponent < 0 ? 0 : exponent + 1; i < n; i++)
		*to++ = digits[i];
	return to;
}

char *lbl_write_double(char *to, double value)
{
	char digits[40];
	int n, exponent;

	if (isnan(value)) {
		memcpy(to, "NaN", 3);
		return to + 3;
	}
	if (signbit(value))
		*to++ = '-';
	else if (isinf(value))
		*to++ = '+';
	value = fabs(value);
	if (isinf(value)) {
		memcpy(to, "Inf", 3);
		return to + 3;
	}
	if (value < 1e6 && value == floor(value)) {
		to = lbl_write_u64(to, (uint64_t)value);
		memcpy(to, ".0", 2);
		return to + 2;
	}
	n = shortest(value, digits, &exponent);
	return exponent < -4 || exponent >= 6 ? write_scientific(to, digits, n, exponent)
					      : write_fixed(to, digits, n, exponent);
}
