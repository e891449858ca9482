import { Toast } from '@base-ui/react/toast'
import { X } from 'lucide-react'
import { ApiError } from '../api/client.ts'
import { IconButton } from './controls.tsx'

const manager = Toast.createToastManager()

/** Said in a corner, and aloud by screen readers; goes by itself. */
export const say = (title: string, description?: string) =>
  manager.add({ title, description, timeout: 6_000 })

/** What went wrong, in the server's words; stays until it is closed. */
export const sayError = (error: unknown, doing: string) =>
  manager.add({
    title: doing,
    description: wordsOf(error),
    type: 'error',
    priority: 'high',
    timeout: 0,
  })

export function wordsOf(error: unknown): string {
  if (!(error instanceof ApiError)) return (error as Error).message
  if (error.status === 403) return `This key may not do that. ${error.message}`
  return error.message
}

export function Toasts({ children }: { children: React.ReactNode }) {
  return (
    <Toast.Provider toastManager={manager} limit={4}>
      {children}
      <Toast.Portal>
        <Toast.Viewport className="fixed right-4 bottom-4 z-[60] flex w-[min(24rem,calc(100vw-2rem))] flex-col gap-2">
          <List />
        </Toast.Viewport>
      </Toast.Portal>
    </Toast.Provider>
  )
}

function List() {
  const { toasts } = Toast.useToastManager()
  return toasts.map(toast => (
    <Toast.Root
      key={toast.id}
      toast={toast}
      className={`flex items-start gap-3 rounded-lg border bg-raised px-4 py-3 shadow-high ${toast.type === 'error' ? 'border-bad' : 'border-line'}`}
    >
      <Toast.Content className="grow text-sm">
        <Toast.Title className={`font-semibold ${toast.type === 'error' ? 'text-bad' : ''}`} />
        <Toast.Description className="break-words text-muted" />
      </Toast.Content>
      <Toast.Close render={<IconButton icon={X} label="Dismiss" />} />
    </Toast.Root>
  ))
}
