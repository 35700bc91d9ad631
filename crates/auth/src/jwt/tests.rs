//! Tokens are made by hand here, with `ring`, so that what is wrong with one is wrong on purpose.

use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use ring::{hmac, rand::SecureRandom as _};
use serde_json::json;

use super::*;

const SECRET: &[u8; 64] = b"a secret of sixty-four bytes, which is as long as a hash may be.";

/// The RSA key of RFC 7515, appendix A.2.
const RFC_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

fn part(value: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

/// Whoever makes tokens.
enum Maker {
    Secret(Vec<u8>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Maker {
    fn ec() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap())
    }

    fn ed() -> Self {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).unwrap();
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Secret(secret) => json!({"kty": "oct", "k": part(secret)}),
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..])})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": part(pair.public_key().as_ref())}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()));
        let bytes = message.as_bytes();
        let signed = match self {
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec(),
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", part(&signed))
    }

    fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": self.alg(), "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.sign(&header, claims)
    }
}

fn keys(list: &[Value]) -> TokenKeys {
    TokenKeys::read(&json!({ "keys": list }), "jwks").unwrap()
}

fn later(seconds: i64) -> Value {
    json!({ "sub": "ann", "exp": Timestamp::now().as_second() + seconds })
}

#[test]
fn a_token_is_accepted_from_whoever_has_the_key() {
    for maker in [Maker::Secret(SECRET.to_vec()), Maker::ec(), Maker::ed()] {
        let set = keys(&[maker.jwk(Some("one"))]);
        let claims = set.verify(&maker.token(Some("one"), &later(60))).unwrap();
        assert_eq!(claims["sub"], "ann", "{}", maker.alg());
        assert!(set.verify(&maker.token(None, &later(60))).is_ok(), "the only key need not be named");
        let other = match &maker {
            Maker::Secret(_) => Maker::Secret(vec![7; 64]),
            Maker::Ec(_) => Maker::ec(),
            Maker::Ed(_) => Maker::ed(),
        };
        assert_eq!(set.verify(&other.token(Some("one"), &later(60))), Err(TokenError::Signature), "{}", maker.alg());
    }
}

#[test]
fn the_signature_of_the_standards_example_holds() {
    // RFC 7515, appendix A.2. It expired in 2011, which is found out only after the signature held.
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let set = keys(&[json!({"kty": "RSA", "n": RFC_N, "e": "AQAB", "alg": "RS256"})]);
    assert_eq!(set.verify(token), Err(TokenError::Expired));
    let changed = token.replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Uj");
    assert_eq!(set.verify(&changed), Err(TokenError::Signature));
}

#[test]
fn times_are_kept() {
    let maker = Maker::ec();
    let set = keys(&[maker.jwk(None)]);
    let now = Timestamp::now().as_second();
    for (claims, verdict) in [
        (json!({"exp": now + 60}), None),
        (json!({"exp": now - 3600}), Some(TokenError::Expired)),
        (json!({"nbf": now + 3600}), Some(TokenError::NotYet)),
        (json!({"nbf": now - 60, "aud": "anybody", "iss": "x"}), None),
        (json!({}), None),
        (json!({"exp": "soon"}), Some(TokenError::Malformed)),
    ] {
        assert_eq!(set.verify(&maker.token(None, &claims)).err(), verdict, "{claims}");
    }
}

#[test]
fn the_token_does_not_choose_how_it_is_checked() {
    let ec = Maker::ec();
    let rsa = json!({"kty": "RSA", "n": RFC_N, "e": "AQAB", "kid": "rsa"});
    let set = keys(&[ec.jwk(Some("ec")), rsa]);
    // Without a signature.
    for alg in ["none", "None", "NONE", "", "HS257"] {
        let token = format!(
            "{}.{}.",
            part(json!({"alg": alg, "kid": "ec"}).to_string().as_bytes()),
            part(later(60).to_string().as_bytes())
        );
        assert_eq!(set.verify(&token), Err(TokenError::Algorithm), "{alg}");
    }
    // With the public key as a shared secret.
    let public = URL_SAFE_NO_PAD.decode(RFC_N).unwrap();
    for (kid, secret) in [("rsa", public), ("ec", b"guess".to_vec())] {
        let token = Maker::Secret(secret).token(Some(kid), &later(60));
        assert_eq!(set.verify(&token), Err(TokenError::Algorithm), "{kid}");
    }
    // With a key of another kind, or another algorithm of the same kind.
    assert_eq!(set.verify(&ec.token(Some("rsa"), &later(60))), Err(TokenError::Algorithm));
    let narrow = keys(&[json!({"kty": "oct", "k": part(SECRET), "alg": "HS512"})]);
    assert_eq!(narrow.verify(&Maker::Secret(SECRET.to_vec()).token(None, &later(60))), Err(TokenError::Algorithm));
}

#[test]
fn a_key_is_named_or_the_only_nameless_one() {
    let (one, two) = (Maker::ec(), Maker::ec());
    let set = keys(&[one.jwk(Some("one")), two.jwk(None)]);
    assert!(set.verify(&one.token(Some("one"), &later(60))).is_ok());
    assert!(set.verify(&two.token(None, &later(60))).is_ok());
    assert_eq!(set.verify(&one.token(None, &later(60))), Err(TokenError::Signature));
    assert_eq!(set.verify(&two.token(Some("two"), &later(60))), Err(TokenError::UnknownKey));
    let named = keys(&[one.jwk(Some("one")), two.jwk(Some("two"))]);
    assert_eq!(named.verify(&one.token(None, &later(60))), Err(TokenError::UnknownKey));
}

#[test]
fn what_is_no_token_is_malformed() {
    let maker = Maker::ec();
    let set = keys(&[maker.jwk(None)]);
    let good = maker.token(None, &later(60));
    let critical = maker.sign(&json!({"alg": "ES256", "crit": ["b64"], "b64": false}), &later(60));
    let number = maker.sign(&json!({"alg": "ES256", "kid": 1}), &later(60));
    let no_object = maker.sign(&json!({"alg": "ES256"}), &json!([1]));
    let long = format!("{good}{}", "A".repeat(9000));
    for token in
        ["", ".", "..", "...", "a.b.c", &good[..good.len() / 3], &format!("{good}.x"), &critical, &number, &no_object, &long]
    {
        assert_eq!(set.verify(token), Err(TokenError::Malformed), "{token}");
    }
    assert!(set.verify(&good).is_ok());
}

#[test]
fn a_wrong_key_set_is_named() {
    let ec = Maker::ec();
    let with = |member: &str, value: Value| {
        let mut jwk = ec.jwk(None);
        jwk[member] = value;
        jwk
    };
    for (list, field) in [
        (json!("https://issuer.example/jwks.json"), "jwks.keys"),
        (json!({}), "jwks.keys"),
        (json!({"keys": []}), "jwks.keys"),
        (json!({"keys": vec![ec.jwk(None); 51]}), "jwks.keys"),
        (json!({"keys": [1]}), "jwks.keys[0]"),
        (json!({"keys": [{}]}), "jwks.keys[0].kty"),
        (json!({"keys": [{"kty": "x"}]}), "jwks.keys[0].kty"),
        (json!({"keys": [with("d", json!("AQAB"))]}), "jwks.keys[0].d"),
        (json!({"keys": [with("use", json!("enc"))]}), "jwks.keys[0].use"),
        (json!({"keys": [with("alg", json!("RS256"))]}), "jwks.keys[0].alg"),
        (json!({"keys": [with("alg", json!("none"))]}), "jwks.keys[0].alg"),
        (json!({"keys": [with("crv", json!("P-521"))]}), "jwks.keys[0].crv"),
        (json!({"keys": [with("x", json!("AQAB"))]}), "jwks.keys[0].x"),
        (json!({"keys": [with("kid", json!(7))]}), "jwks.keys[0].kid"),
        (json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}), "jwks.keys[0].n"),
        (json!({"keys": [{"kty": "RSA", "n": "?", "e": "AQAB"}]}), "jwks.keys[0].n"),
        (json!({"keys": [{"kty": "RSA", "n": RFC_N}]}), "jwks.keys[0].e"),
        (json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}), "jwks.keys[0].k"),
        (json!({"keys": [{"kty": "OKP", "crv": "X25519", "x": "AQAB"}]}), "jwks.keys[0].crv"),
        (json!({"keys": [ec.jwk(None), ec.jwk(None)]}), "jwks.keys[1].kid"),
        (json!({"keys": [ec.jwk(Some("a")), ec.jwk(Some("a"))]}), "jwks.keys[1].kid"),
    ] {
        assert_eq!(TokenKeys::read(&list, "jwks").expect_err(field).field, field, "{list}");
    }
}
