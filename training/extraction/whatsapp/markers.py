"""The phrases that WhatsApp itself writes into an export, by locale: data, and the only place that holds it.

Wording from WhatsApp's own iOS (2022/23) and Android (2017-2019) string tables as collected by starkdmi/whats_json,
newer Android media marks and edit marks from public parsers. Matched on a whole body only, case-folded, without
direction marks and without a final full stop: "I left my keys" and "the video omitted a detail" are a person's.
"""

import re

from training.extraction.record import Kind


def _table(text: str) -> tuple[str, ...]:
    """Rows of `locale  phrase | phrase`; a row that starts with blanks continues the one above."""
    rows = re.sub(r"\n +", " ", text.strip()).split("\n")
    return tuple(phrase.strip() for row in rows for phrase in row.partition(" ")[2].split("|"))


MEDIA = _table("""
en  image omitted | video omitted | audio omitted | sticker omitted | GIF omitted | Contact card omitted |
    document omitted | product image omitted | <Media omitted> | video note omitted |
    <View once voice message omitted> | <Video note omitted> | <Video message omitted>
fr  image absente | vidéo absente | audio omis | sticker omis | GIF retiré | Fiche contact manquante |
    document manquant | image produit oubliée | <Fichier omis> | <Médias omis>
de  Bild weggelassen | Video weggelassen | Audio weggelassen | Sticker weggelassen | GIF weggelassen |
    Kontaktkarte ausgelassen | Dokument weggelassen | Produktbild ausgelassen | <Medien weggelassen> |
    <Medien ausgeschlossen> | Videonotiz weggelassen | <Medien ausgelassen> | <Videonachricht weggelassen>
es  imagen omitida | Video omitido | audio omitido | sticker omitido | GIF omitido | Tarjeta de contacto omitida |
    documento omitido | imagen del producto omitida | <Archivo omitido> | <Multimedia omitido>
it  immagine omessa | video omesso | audio omesso | sticker non incluso | GIF esclusa | Scheda contatto omessa |
    documento omesso | immagine del prodotto omessa | <Media omesso> | <Media omessi>
pt  imagem não revelada | vídeo não revelado | ficheiro de áudio não revelado | sticker não revelado |
    GIF não revelada | Contacto não revelado | documento não revelado | imagem do produto não revelada |
    <Ficheiro não revelado> | <Multimédia omitido>
br  imagem ocultada | vídeo omitido | áudio ocultado | figurinha omitida | GIF omitido | Cartão do contato omitido |
    documento omitido | imagem de produto omitida | <Mídia omitida> | <Mídia oculta>
nl  afbeelding weggelaten | video weggelaten | audio weggelaten | sticker weggelaten | GIF weggelaten |
    Visitekaartje weggelaten | document weggelaten | productafbeelding weggelaten | <Media weggelaten>
tr  görüntü dahil edilmedi | video dahil edilmedi | ses dahil edilmedi | Çıkartma dahil edilmedi |
    GIF dahil edilmedi | Kişi kartı dahil edilmedi | belge dahil edilmedi | ürün görseli dahil edilmedi |
    <Medya atlanmış> | <Medya dahil edilmedi>
ru  изображение отсутствует | видео отсутствует | аудиофайл отсутствует | стикер не добавлен | GIF отсутствует |
    Карточка контакта отсутствует | документ отсутствует | изображение товара отсутствует | <Файл пропущен> |
    <Без медиафайлов>
ar  لم يتم إدراج الصورة | لم يتم إدراج الفيديوهات | لم يتم إدراج المقاطع الصوتية | تم حذف الملصقات |
    لم يتم إدراج صورة GIF | لم يتم إدراج بطاقة جهة اتصال | لم يتم إدراج المستند | تم حذف صورة المنتج |
    <تم استبعاد الوسائط>
cs  obrázek vynechán | video vynecháno | zvukový soubor vynechán | nálepka vynechána | GIF vynechán |
    Vizitka vynechána | dokument vynechán | obrázek produktu byl vynechán | < Média vynechána > | <Média vynechány>
id  gambar tidak disertakan | video tidak disertakan | audio tidak disertakan | stiker tidak disertakan |
    GIF tidak disertakan | Kartu kontak tidak disertakan | dokumen tidak disertakan | gambar produk dihilangkan |
    <Media tidak disertakan>
th  ไม่มีรูปภาพ | วิดีโอถูกลบ | ไม่มีไฟล์เสียง | ไม่มีสติกเกอร์ | ละเว้น GIF | บัตรรายชื่อที่ละเว้น | ละเว้นเอกสาร |
    ไม่ได้ใส่รูปผลิตภัณฑ์ | <สื่อถูกลบ> | <ไฟล์สื่อถูกลบ>
ja  画像は含まれていません | ビデオは含まれていません | 音声は含まれていません | スタンプは含まれていません |
    GIFは含まれていません | 連絡先カードを省略 | ドキュメントは含まれていません | 商品画像は含まれていません |
    <メディアは含まれていません> | <メディアなし>
""")

DELETED = _table("""
en  This message was deleted | You deleted this message | This message was deleted by an admin
fr  Ce message a été supprimé | Vous avez supprimé ce message | Ce message a été supprimé par un ou une admin
de  Diese Nachricht wurde gelöscht | Du hast diese Nachricht gelöscht |
    Diese Nachricht wurde von einem*einer Admin gelöscht
es  Se eliminó este mensaje | Eliminaste este mensaje | Un admin. eliminó este mensaje | Este mensaje fue eliminado
it  Questo messaggio è stato eliminato | Hai eliminato questo messaggio |
    Questo messaggio è stato eliminato da un amministratore
pt  Esta mensagem foi apagada | Apagou esta mensagem | Esta mensagem foi apagada por um/a administrador/a |
    Esta mensagem foi apagada pelo remetente
br  Mensagem apagada | Mensagem apagada por um admin | Esta mensagem foi apagada | Você apagou esta mensagem
nl  Dit bericht is verwijderd | U hebt dit bericht verwijderd | Dit bericht is verwijderd door een beheerder
tr  Bu mesaj silindi | Bu mesajı sildiniz | Bu mesaj bir yönetici tarafından silindi
ru  Данное сообщение удалено | Вы удалили данное сообщение | Вы удалили это сообщение |
    Данное сообщение удалено админом
ar  تم حذف هذه الرسالة | لقد حذَفت هذه الرسالة | حذف أحد المشرفين هذه الرسالة | أنت حذفت هذه الرسالة
cs  Tato zpráva byla smazána | Tuto zprávu jste smazal/a | Tuto zprávu smazal jeden ze správců skupiny |
    Tato zpráva byla odstraněna | Tuto zprávu jste odstranil/a
id  Pesan ini dihapus | Anda menghapus pesan ini | Pesan ini dihapus oleh admin | Pesan ini telah dihapus |
    Anda telah menghapus pesan ini
th  ข้อความนี้ถูกลบแล้ว | คุณได้ลบข้อความนี้ | ข้อความนี้ถูกลบโดยผู้ดูแล | ข้อความนี้ได้ถูกลบ | คุณลบข้อความนี้
ja  このメッセージは削除されました | このメッセージを削除しました | このメッセージを削除しました |
    このメッセージは管理者により削除されました | このメッセージは削除されました
""")

CALLS = _table("""
en  Missed voice call | Missed video call | Missed group voice call | Missed group video call
fr  Appel vocal manqué | Appel vidéo manqué | Appel vocal de groupe manqué | Appel vidéo de groupe manqué
de  Verpasster Sprachanruf | Verpasster Videoanruf | Verpasster Gruppen-Sprachanruf | Verpasster Gruppen-Videoanruf
es  Llamada perdida | Videollamada perdida | Llamada grupal perdida | Videollamada grupal perdida |
    Llamada de voz perdida
it  Chiamata vocale persa | Videochiamata persa | Chiamata vocale di gruppo persa | Videochiamata di gruppo persa
pt  Chamada de voz perdida | Videochamada perdida | Chamada de voz em grupo perdida | Videochamada em grupo perdida
br  Chamada de voz perdida | Chamada de vídeo perdida | Chamada de voz em grupo perdida |
    Chamada de vídeo em grupo perdida
nl  Gemist spraakgesprek | Gemist videogesprek | Gemist groepsgesprek | Gemist groepsvideogesprek |
    Gemiste spraakoproep | Gemiste video-oproep
tr  Cevapsız sesli arama | Cevapsız görüntülü arama | Cevapsız sesli grup araması | Cevapsız görüntülü grup araması
ru  Пропущенный аудиозвонок | Пропущенный видеозвонок | Пропущенный групповой аудиозвонок |
    Пропущенный групповой видеозвонок
ar  مكالمة صوتية فائتة | مكالمة فيديو فائتة | مكالمة صوتية جماعية فائتة | مكالمة فيديو جماعية فائتة
cs  Zmeškaný hovor | Zmeškaný videohovor | Zmeškaný skupinový hovor | Zmeškaný skupinový videohovor |
    Zmeškaný hlasový hovor
id  Panggilan suara tak terjawab | Tak Terjawab | Panggilan video tak terjawab | Panggilan suara grup tak terjawab |
    Panggilan video grup tak terjawab
th  สายที่ไม่ได้รับ | วิดีโอคอลที่ไม่ได้รับ | สายโทรเสียงแบบกลุ่มที่ไม่ได้รับ | วิดีโอคอลกลุ่มที่ไม่ได้รับ |
    สายโทรวิดีโอที่ไม่ได้รับ
ja  音声通話不在着信 | ビデオ通話不在着信 | グループ音声通話不在着信 | グループビデオ通話不在着信 | 不在着信
""")

LIVE_LOCATION = _table("""
en  live location shared
fr  Localisation en direct partagée
de  Live-Standort wird geteilt
es  ubicación en tiempo real compartida
it  posizione attuale condivisa
pt  Está a partilhar a sua localização
br  localização atual compartilhada
nl  live locatie gedeeld
tr  Mevcut konum paylaşıldı
ru  Геоданные отправлены
ar  تمت مشاركة الموقع المباشر
cs  byla sdílena aktuální poloha
id  Lokasi terkini dibagikan
th  ตำแหน่งปัจจุบันถูกแบ่งปัน
ja  ライブロケーション共有
""")

# A message that this phone could not decrypt, or may show only once.
NEVER_ARRIVED = _table("""
en  Waiting for this message. This may take a while | You received a view once message
fr  En attente de ce message. Ceci pourrait prendre un moment | Vous avez reçu un message à vue unique
de  Warte auf diese Nachricht. Das kann einen Moment dauern | Du hast eine Nachricht zur einmaligen Ansicht erhalten
es  Esperando el mensaje. Esto puede tomar tiempo | Recibiste un mensaje de visualización única
it  In attesa del messaggio. Potrebbe volerci un po' di tempo | Hai ricevuto un messaggio visualizzabile una volta
pt  A aguardar pela mensagem. Isto pode demorar um pouco | Recebeu uma mensagem de visualização única
br  Aguardando mensagem. Essa ação pode levar alguns instantes | Você recebeu uma mensagem de visualização única
nl  Wachten op dit bericht. Dit kan even duren | U hebt een bericht voor eenmalige weergave ontvangen
tr  Mesaj bekleniyor. Bu biraz zaman alabilir | Bir kez görüntülendikten sonra kaybolacak bir mesaj aldınız
ru  Ожидание сообщения. Это может занять некоторое время | Вы получили сообщение однократного просмотра
ar  في انتظار هذه الرسالة، قد يستغرق ذلك بعض الوقت | لقد تلقيت رسالة للعرض مرة واحدة
cs  Čeká se na tuto zprávu. Může to chvíli trvat | Obdržel/a jste zprávu s jednorázovým zobrazením
id  Menunggu pesan ini. Ini mungkin membutuhkan waktu beberapa saat
th  กำลังรอข้อความนี้ อาจใช้เวลาสักครู่ |
    คุณได้รับข้อความที่ดูได้ครั้งเดียว คุณสามารถเปิดข้อความได้ในโทรศัพท์เท่านั้นเพื่อความเป็นส่วนตัวยิ่งขึ้น
ja  メッセージを待っています。しばらく時間がかかることがあります | 1回表示のメッセージを受信しました
""")

# Android: "IMG-20220323-WA0002.jpg (file attached)".
FILE_ATTACHED = _table("""
en  file attached
fr  fichier joint
de  Datei angehängt
es  archivo adjuntado | archivo adjunto
it  file allegato
pt  ficheiro anexado
br  arquivo anexado
nl  bestand bijgevoegd
tr  dosya ekli
ru  файл добавлен
ar  الملف مرفق
cs  soubor byl přiložen
id  file terlampir
th  ไฟล์ที่แนบ
ja  添付ファイル有り | ファイル添付
""")

EDITED = _table("""
en  This message was edited
es  Se editó este mensaje
de  Diese Nachricht wurde bearbeitet
fr  Ce message a été modifié
it  Questo messaggio è stato modificato
pt  Esta mensagem foi editada
br  Mensagem editada
nl  Dit bericht is bewerkt
tr  Bu mesaj düzenlendi
ar  تم تعديل هذه الرسالة
ru  Это сообщение изменено
""")

# The encryption notice and its older forms, from their first word on: people, too, talk about encryption. `…` stands
# for some words; what follows the last of these changes every year.
ENCRYPTION = _table("""
en  Messages and calls are end-to-end encrypt | Messages … now secured with end-to-end encrypt
fr  Les messages … chiffrés de bout en bout | Les messages … chiffrement de bout en bout
de  Nachrichten … Ende-zu-Ende-verschlüssel | Nachrichten … Ende-zu-Ende-Verschlüssel
es  Los mensajes … cifrados de extremo a extremo | Los mensajes … cifrado de extremo a extremo
it  I messaggi … crittografati end-to-end | I messaggi … crittografia end-to-end
pt  As mensagens … encriptadas ponto a ponto | As mensagens … completamente encriptadas
br  As mensagens … criptografia de ponta a ponta | As mensagens … criptografia de ponta-a-ponta
nl  Berichten … end-to-end versleuteld | Berichten … end-to-end encryptie
tr  Mesajlar … uçtan uca şifre | Bu sohbet … uçtan uca şifre
ru  Сообщения … сквозным шифрованием
ar  الرسائل … مشفرة تمامًا بين الطرفين | الرسائل … خلال التشفير التام
cs  Zprávy … koncovým šifrováním
id  Pesan … terenkripsi secara end-to-end | Pesan … enkripsi end-to-end
th  ข้อความ … การเข้ารหัสจากต้นทางถึงปลายทาง
ja  メッセージ … エンドツーエンド暗号化 | メッセージ … エンドツーエンドの暗号化
""")

# Android events that may hold ": ", so that what precedes the colon must not pass for a sender.
EVENTS_WITH_COLON = _table("""
en  changed the subject | changed the group name | created group " | created this group | changed this group |
    added you to a group in the community | changed the group description
fr  a modifié le sujet | a changé le sujet | avez changé le sujet | a créé le groupe "
de  hat den Betreff | hast den Betreff | hat die Gruppe "
es  cambió el asunto | Cambiaste el asunto | creó el grupo " | Creaste el grupo "
it  ha cambiato l'oggetto | Hai cambiato l'oggetto | ha creato il gruppo “
pt  alterou o assunto | criou o grupo "
br  alterou o nome de " | alterou o nome do grupo
nl  heeft het onderwerp gewijzigd | hebt het onderwerp gewijzigd | heeft de groep '
tr  olan konuyu “ | grup konusunu “
ru  изменил(-а) тему | изменили тему | создал(-а) группу "
ar  اسم المجموعة من " | اسم المجموعة إلى "
cs  změnil/a téma | jste téma
id  mengubah subjek | membuat grup "
th  เปลี่ยนหัวข้อ | สร้างกลุ่ม "
""")

# `{}` stands for the chat's name.
EXPORT_TITLES = (
    "WhatsApp Chat - {}",
    "WhatsApp Chat with {}",
    "Discussion WhatsApp avec {}",
    "WhatsApp Chat mit {}",
    "Chat de WhatsApp con {}",
    "Chat WhatsApp con {}",
    "Conversa no WhatsApp com {}",
    "Conversa do WhatsApp com {}",
    "WhatsApp-chat met {}",
    "{} ile WhatsApp Sohbeti",
    "Чат WhatsApp с {}",
    "دردشة واتساب مع {}",
    "Chat WhatsApp s uživatelem {}",
    "Chat WhatsApp dengan {}",
    "แชท WhatsApp กับ {}",
    "{}とのWhatsAppチャット",
)


def normal(text: str) -> str:
    """The form in which phrases are compared."""
    return MARKS.sub("", text).strip().rstrip(".。").rstrip().casefold()


# Direction marks and the byte order mark: invisible, never part of a name or a phrase.
MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

PHRASES: dict[str, Kind] = {
    normal(phrase): kind
    for kind, phrases in (
        (Kind.MEDIA, MEDIA),
        (Kind.DELETED, DELETED),
        (Kind.CALL, CALLS),
        (Kind.LOCATION, LIVE_LOCATION),
        (Kind.SYSTEM, NEVER_ARRIVED),
    )
    for phrase in phrases
}
