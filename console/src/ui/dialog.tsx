import { Dialog as Base } from '@base-ui/react/dialog'
import { X } from 'lucide-react'
import type { ReactNode } from 'react'
import { IconButton } from './controls.tsx'

/** A window over the page: focus stays inside, Escape closes it and brings the focus back. */
export function Dialog({
  open,
  onClose,
  title,
  about,
  wide = false,
  children,
}: {
  open: boolean
  onClose(): void
  title: string
  about?: ReactNode
  wide?: boolean
  children: ReactNode
}) {
  return (
    <Base.Root open={open} onOpenChange={next => !next && onClose()}>
      <Base.Portal>
        <Base.Backdrop className="fixed inset-0 z-40 bg-black/45" />
        <Base.Popup
          className={`fixed top-1/2 left-1/2 z-50 flex max-h-[90dvh] w-[calc(100vw-2rem)] -translate-x-1/2 -translate-y-1/2 flex-col overflow-hidden rounded-2xl border border-line bg-raised shadow-high ${wide ? 'max-w-4xl' : 'max-w-lg'}`}
        >
          <div className="flex items-start justify-between gap-4 border-b border-line px-5 py-4">
            <div>
              <Base.Title className="text-base font-semibold">{title}</Base.Title>
              {about !== undefined && (
                <Base.Description className="mt-0.5 text-sm text-muted">{about}</Base.Description>
              )}
            </div>
            <Base.Close render={<IconButton icon={X} label="Close" />} />
          </div>
          <div className="overflow-y-auto px-5 py-4">{children}</div>
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  )
}
