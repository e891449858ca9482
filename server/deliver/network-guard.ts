import { lookup as dnsLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { AppError } from '../errors.ts'
import { type DeliveryError, permanent } from './provider.ts'

/** Says which addresses may be called, so that nobody's endpoint makes us call into our own network (SSRF). */
export interface NetworkGuard {
  /** For a host that is an IP address; undefined for names, which `lookup` checks when they are resolved. */
  refuseLiteral(host: string): DeliveryError | undefined
  /**
   * Resolves and checks in one step and hands on only what passed: the connection goes to the very address that
   * was checked, so a name that answers differently the second time (DNS rebinding) gains nothing.
   */
  lookup: LookupFunction
}

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Network = [Address, number]

const GLOBAL_UNICAST_V6: Network = [ipaddr.parse('2000::'), 3]
const NAT64: Network = [ipaddr.parse('64:ff9b::'), 96]

/**
 * `allow`: CIDRs of non-public networks that may be called all the same, such as `10.20.0.0/16`. Throws
 * `invalid_request` on one that cannot be read.
 *
 * `resolve` is the system resolver unless a test brings its own.
 */
export function networkGuard(allow: readonly string[], resolve: typeof dnsLookup = dnsLookup): NetworkGuard {
  const allowed = allow.map(parseNetwork)

  return {
    refuseLiteral(host) {
      const bare = host.startsWith('[') ? host.slice(1, -1) : host
      if (isIP(bare) === 0 || mayCall(bare, allowed)) return undefined
      return blocked(bare)
    },

    lookup(hostname, options, done) {
      resolve(hostname, { ...options, all: true }, (error, addresses) => {
        if (error) return done(error, '', 0)
        const passed = addresses.filter(found => mayCall(found.address, allowed))
        const first = passed[0]
        if (first === undefined) return done(blocked(hostname), '', 0)
        if (options.all) return done(null, passed)
        done(null, first.address, first.family)
      })
    },
  }
}

const blocked = (host: string) =>
  permanent('blocked_address', `${host} is not a public address; allow its network to call it`)

function parseNetwork(cidr: string): Network {
  try {
    return ipaddr.parseCIDR(cidr)
  } catch (cause) {
    throw new AppError('invalid_request', `"${cidr}" is not a network such as 10.0.0.0/8`, {
      field: 'allowPrivate',
      cause,
    })
  }
}

/**
 * Only global unicast is called: not loopback, private, link-local (which holds the clouds' metadata services),
 * carrier NAT, unique local, multicast, documentation or reserved space. IPv6 forms that carry an IPv4 address
 * are judged by that address.
 */
function mayCall(address: string, allowed: readonly Network[]): boolean {
  let ip: Address = ipaddr.process(address)
  if (within(ip, NAT64)) ip = new ipaddr.IPv4(ip.toByteArray().slice(12))
  if (allowed.some(network => within(ip, network))) return true
  if (ip.range() !== 'unicast') return false
  // The library calls some unassigned IPv6 space unicast, among it the old ::127.0.0.1 form; only 2000::/3 is
  // in use (IANA IPv6 address space registry).
  return ip.kind() === 'ipv4' || within(ip, GLOBAL_UNICAST_V6)
}

// The kinds must agree before matching: the library throws otherwise.
const within = (ip: Address, [network, bits]: Network): boolean =>
  ip.kind() === network.kind() && ip.match(network, bits)
