/* SHA-256 against the examples of FIPS 180-4's companion (NIST, "SHA256.pdf") and in pieces. */
#include "lib/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect(const struct sha256 *digest, const char *wanted)
{
    struct sha256 copy = *digest;
    uint8_t out[SHA256_BYTES];
    char text[2 * SHA256_BYTES + 1];

    sha256_end(&copy, out);
    for (unsigned i = 0; i < SHA256_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", out[i]);
    assert_string_equal(text, wanted);
}

static void test_examples(void **state)
{
    struct sha256 digest;
    char a[1000];

    (void)state;
    sha256_begin(&digest);
    expect(&digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_add(&digest, "abc", 3);
    expect(&digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_begin(&digest);
    sha256_add(&digest, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    expect(&digest, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(a, 'a', sizeof(a));
    sha256_begin(&digest);
    for (unsigned i = 0; i < 1000; i++)
        sha256_add(&digest, a, sizeof(a));
    expect(&digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_pieces(void **state)
{
    uint8_t bytes[300], whole[SHA256_BYTES], pieces[SHA256_BYTES];
    struct sha256 digest;

    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    for (unsigned size = 0; size < sizeof(bytes); size++) {
        sha256_begin(&digest);
        sha256_add(&digest, bytes, size);
        sha256_end(&digest, whole);
        sha256_begin(&digest);
        for (unsigned at = 0, part = 1; at < size; at += part, part = 1 + (at * 13) % 70)
            sha256_add(&digest, bytes + at, part < size - at ? part : size - at);
        sha256_end(&digest, pieces);
        assert_memory_equal(whole, pieces, SHA256_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
