/*
 * .NET up to version 5 knows OpenSSL 1.1 and no newer one, and ends the process of whoever asks it for a hash where there is
 * none. Of what it calls, OpenSSL 3 lacks three functions, which are here; the rest it finds in the libraries this one needs.
 *
 * .NET looks for libssl.so.$CLR_OPENSSL_VERSION_OVERRIDE before any other.
 */

typedef struct evp_md_st EVP_MD;
typedef struct ssl_st SSL;
typedef struct x509_st X509;

/* Of OpenSSL 3. */
int EVP_MD_get_size(const EVP_MD *md);
X509 *SSL_get1_peer_certificate(const SSL *ssl);
void ERR_new(void);
void ERR_set_debug(const char *file, int line, const char *func);
void ERR_set_error(int lib, int reason, const char *format, ...);

int EVP_MD_size(const EVP_MD *md)
{
    return EVP_MD_get_size(md);
}

X509 *SSL_get_peer_certificate(const SSL *ssl)
{
    return SSL_get1_peer_certificate(ssl);
}

void ERR_put_error(int lib, int func, int reason, const char *file, int line)
{
    (void)func;
    ERR_new();
    ERR_set_debug(file, line, 0);
    ERR_set_error(lib, reason, 0);
}
