"""What people type, in thirteen languages: small talk, and sentences that come close to WhatsApp's own."""

MESSAGES = """
I left my keys
Bob left
you left??
image omitted
video call?
Video call
Call me
This message was deleted lol
deleted
You deleted this message, why?
missed voice call from mum, she is fine
the video omitted a detail
waiting for this message to arrive since monday
<3 <3
ok (see attached)
see you at 5 (or 6)
she added you to the list
You're now an admin of nothing
location: my place
location: https://example.org/map
meet here: https://maps.google.com/?q=51.5,-0.12
https://maps.google.com is down
null and void
NULL
Null pointer again :)
I changed to decaf
joined the gym
the file attached is wrong
report.pdf (final version)
IMG_2022.jpg
POLL: who is in?
Sticker omitted, what does that mean
live location shared with you, can you see it
edited: I meant Tuesday
<This is edited>
Missed call
J'ai oublié mes clés
Léa a quitté le bureau
Vous avez supprimé ce message ?
ce message a été supprimé par erreur
image absente
vidéo absente aujourd'hui, prof malade
appel manqué, je te rappelle
Tu as ajouté Paul ?
Marie a ajouté du sel
fichier joint
le contrat (fichier joint) est à signer
localisation : chez moi
rdv ici : https://maps.google.com/?q=48.85,2.35
en attente de ce message depuis hier
Paul a changé d'avis
ça va ? oui (et toi)
bon, à 18h30 alors
Appel vidéo ?
audio omis dans le rapport
on se voit demain :)
Ich habe die Gruppe verlassen wollen
Bild weggelassen
Du hast diese Nachricht gelöscht?
Anruf verpasst, melde mich
Datei angehängt
der Vertrag (Datei angehängt) ist da
Standort: zu Hause
Paul hat dich gesucht
Anna hat den Betreff vergessen
GIF weggelassen, sorry
bis morgen um 8
Warte auf diese Nachricht seit Montag
Videoanruf heute?
alles klar (danke)
Diese Nachricht wurde gelöscht, oder
ich bin raus
Me dejé las llaves
Ana salió temprano
Eliminaste este mensaje, ¿no?
imagen omitida
llamada perdida de mamá
archivo adjunto
el contrato (archivo adjunto) ya está
ubicación: mi casa
Pedro te añadió azúcar
cambió el asunto, ya no vamos
¿Videollamada luego?
nos vemos a las 10
esperando el mensaje de Juan
audio omitido por error, perdona
jajaja (no)
te llamo luego
Ho lasciato le chiavi
Marco ha abbandonato la gara
immagine omessa
hai eliminato questo messaggio?
chiamata persa, scusa
file allegato
la bolletta (file allegato) è qui
posizione: casa mia
Luca ha aggiunto il sale
Videochiamata persa per colpa tua
ci vediamo alle 9
in attesa del messaggio di Anna
va bene (grazie)
GIF esclusa dal conto
Deixei as chaves
O João saiu
Saiu do trabalho agora
Mensagem apagada por engano
imagem ocultada
chamada perdida da avó
arquivo anexado
o contrato (arquivo anexado) chegou
localização: minha casa
A Ana adicionou sal
você apagou esta mensagem?
vídeo omitido
até amanhã às 10
aguardando mensagem do banco
kkkk (sim)
Ik ben mijn sleutels vergeten
Jan heeft de groep gezien
afbeelding weggelaten
U hebt dit bericht verwijderd?
gemist gesprek, ik bel terug
bestand bijgevoegd
het contract (bestand bijgevoegd) is er
locatie: thuis
Piet heeft zout toegevoegd
wachten op dit bericht duurt lang
tot morgen om 8
videogesprek vanavond?
prima (dank je)
dit bericht is verwijderd haha
Anahtarımı unuttum
Ali ayrıldı mı
görüntü dahil edilmedi
Bu mesajı sildiniz mi
cevapsız arama var
dosya ekli
sözleşme (dosya ekli) geldi
konum: ev
Ayşe tuz ekledi
video dahil edilmedi galiba
yarın saat 8
mesaj bekleniyor hâlâ
tamam (sağ ol)
Я забыл ключи
Боб ушёл
изображение отсутствует
вы удалили сообщение?
пропущенный звонок от мамы
файл добавлен
договор (файл добавлен) тут
местоположение: дома
Аня добавила соль
Паша изменил тему разговора
до завтра в 8
ожидание сообщения утомляет
ладно (спасибо)
стикер не добавлен
видеозвонок?
نسيت المفاتيح
محمد غادر
لم يتم إدراج الصورة
هل حذفت هذه الرسالة؟
مكالمة فائتة من أمي
الملف مرفق
العقد (الملف مرفق) هنا
الموقع: البيت
أحمد أضاف الملح
أراك غدا الساعة 8
في انتظار هذه الرسالة منذ أمس
تمام (شكرا)
تم حذف الملصقات
كيف حالك؟
我忘了带钥匙
小明退出了
图片已略去
照片已忽略
你删除了这条消息吗
妈妈的未接电话
文件附件
合同 (文件附件) 在这里
位置：我家
小红添加了盐
明天8点见
正在等待信息
好的 (谢谢)
视频已忽略
哈哈哈
鍵を忘れた
ボブが退出した
画像は含まれていません
このメッセージを削除した?
不在着信あったよ
添付ファイル見て
契約書 (添付) です
位置情報：家
花子が塩を追加しました
明日8時に
メッセージを待っています
了解 (ありがとう)
ビデオは含まれていません
なるほど
मैं चाबी भूल गया
बॉब ने छोड़ा
फ़ोटो हटाई गई
आपने यह मैसेज डिलीट किया क्या
माँ की मिस्ड कॉल
फाइल अटैच कर दी
स्थान : घर
राम ने नमक डाला
कल 8 बजे
ठीक है (धन्यवाद)
वीडियो छोड़ा गया
क्या हाल है
Kunciku ketinggalan
Budi keluar
gambar tidak disertakan
Anda menghapus pesan ini?
panggilan tak terjawab dari ibu
file terlampir
kontrak (file terlampir) ada di sini
lokasi : rumah
Siti menambahkan garam
sampai besok jam 8
menunggu pesan ini dari kemarin
oke (makasih)
""".strip().split("\n")
