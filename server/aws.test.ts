import assert from 'node:assert/strict'
import { test } from 'node:test'
import { signV4, type Unsigned } from './aws.ts'

/** The account of the test suite that AWS publishes (aws-sig-v4-test-suite). */
const suite: Unsigned = {
  method: 'GET',
  url: 'https://example.amazonaws.com/',
  headers: {},
  body: '',
  region: 'us-east-1',
  service: 'service',
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
  now: new Date('2015-08-30T12:36:00Z'),
}
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const TOKEN =
  'AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=='

test("signs AWS's published vectors", () => {
  const vectors: [name: string, more: Partial<Unsigned>, names: string, signature: string][] = [
    [
      'get-vanilla',
      {},
      'host;x-amz-date',
      '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
    ],
    [
      'post-vanilla',
      { method: 'POST' },
      'host;x-amz-date',
      '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
    ],
    [
      'get-vanilla-query-order-key-case',
      { url: 'https://example.amazonaws.com/?Param2=value2&Param1=value1' },
      'host;x-amz-date',
      'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500',
    ],
    [
      'post-x-www-form-urlencoded',
      { method: 'POST', headers: form, body: 'Param1=value1' },
      'content-type;host;x-amz-date',
      'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
    ],
    [
      'post-sts-header-before',
      { method: 'POST', sessionToken: TOKEN },
      'host;x-amz-date;x-amz-security-token',
      '85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead',
    ],
    [
      // The worked example of the IAM guide.
      'iam-list-users',
      {
        url: 'https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08',
        headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
        service: 'iam',
      },
      'content-type;host;x-amz-date',
      '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    ],
  ]
  for (const [name, more, names, signature] of vectors) {
    const request = { ...suite, ...more }
    const { authorization } = signV4(request)
    const credential = `AKIDEXAMPLE/20150830/us-east-1/${request.service}/aws4_request`
    assert.equal(
      authorization,
      `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`,
      name,
    )
  }
})

test('gives back all that is to be sent, and never the secret', () => {
  const headers = signV4({ ...suite, headers: form, sessionToken: 'token' })
  assert.deepEqual(Object.keys(headers).sort(), [
    'authorization',
    'content-type',
    'x-amz-date',
    'x-amz-security-token',
  ])
  assert.equal(headers['x-amz-date'], '20150830T123600Z')
  assert.ok(!JSON.stringify(headers).includes(suite.secretAccessKey))
})

test('whatever is signed changes the signature; blanks at the ends and in a row do not', () => {
  const of = (more: Partial<Unsigned>) => signV4({ ...suite, headers: { a: 'x y' }, ...more }).authorization
  const changed = [
    of({}),
    of({ method: 'PUT' }),
    of({ body: ' ' }),
    of({ url: 'https://example.amazonaws.com/%20' }),
    of({ url: 'https://example.amazonaws.com/?a=*' }),
    of({ url: 'https://example.amazonaws.com:8443/' }),
    of({ headers: { a: 'xy' } }),
    of({ sessionToken: 'token' }),
    of({ region: 'eu-west-1' }),
    of({ now: new Date('2015-08-30T12:36:01Z') }),
  ]
  assert.equal(new Set(changed).size, changed.length)
  assert.equal(of({ headers: { a: '  x  y ' } }), of({}))
  assert.equal(
    of({ url: 'https://example.amazonaws.com/?b=1&a=2&a=1' }),
    of({ url: 'https://example.amazonaws.com/?a=1&a=2&b=1' }),
  )
})

/** "Examples: Signature Calculations" of the S3 API reference. */
test('signs as S3 has it, with the path as it is and the hash of the body', () => {
  const s3 = {
    ...suite,
    accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
    secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
    service: 's3',
    now: new Date('2013-05-24T00:00:00Z'),
  }
  const get = signV4({
    ...s3,
    url: 'https://examplebucket.s3.amazonaws.com/test.txt',
    headers: { range: 'bytes=0-9' },
  })
  assert.equal(
    get['x-amz-content-sha256'],
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  )
  assert.match(get.authorization!, /SignedHeaders=host;range;x-amz-content-sha256;x-amz-date/)
  assert.match(
    get.authorization!,
    /Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41$/,
  )
  const put = signV4({
    ...s3,
    method: 'PUT',
    url: 'https://examplebucket.s3.amazonaws.com/test%24file.text',
    headers: { date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
    body: 'Welcome to Amazon S3.',
  })
  assert.match(
    put.authorization!,
    /Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd$/,
  )
})
