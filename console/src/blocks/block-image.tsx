import { useQuery } from '@tanstack/react-query'
import { ImageOff } from 'lucide-react'
import { call } from '../api/client.ts'

/** `{{asset 'logo'}}` names a picture that was uploaded. */
export const assetName = (src: string): string | undefined => /^\{\{asset '([\w.-]+)'\}\}$/.exec(src)?.[1]

/** The pictures that are here, newest names last; enough for a list to choose from. */
export const useAssets = () =>
  useQuery({
    queryKey: ['assets'],
    queryFn: ({ signal }) => call('listAssets', { query: { limit: 200 }, signal }),
    staleTime: 60_000,
  })

/** Where mails look for uploaded pictures; undefined: there are none. */
export function usePicturesOrigin(): string | undefined {
  const { data } = useAssets()
  const url = data?.items[0]?.url
  return url === undefined ? undefined : new URL(url).origin
}

/** The same picture where this page is from: the server may have another name outside. */
function fromHere(url: string): string {
  const { pathname, search } = new URL(url)
  return pathname + search
}

/** A picture as it will be; those from elsewhere are not fetched, so that nobody learns of it. */
export function BlockImage({ src, alt, width }: { src: string; alt: string; width: number | undefined }) {
  const assets = useAssets()
  const name = assetName(src)
  const url = name === undefined ? undefined : assets.data?.items.find(one => one.name === name)?.url
  if (url !== undefined) {
    return (
      <img
        src={fromHere(url)}
        alt={alt}
        style={{ width }}
        className="inline-block h-auto max-w-full rounded-sm"
      />
    )
  }
  return (
    <div
      className="inline-flex max-w-full flex-col items-center gap-1 rounded-md border border-dashed border-outline px-6 py-8 text-sm text-muted"
      style={{ width: width ?? '100%' }}
    >
      <ImageOff aria-hidden className="size-5" />
      <span className="break-all">{src === '' ? 'Choose a picture' : alt || src}</span>
    </div>
  )
}
